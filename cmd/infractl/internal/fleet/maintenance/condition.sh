# shellcheck shell=sh

# condition tells in one line how this host does: "drained REASON", "ready", or
# "unwell" and why.
condition() {
	ready=/usr/local/lib/infractl/ready
	if [ -e /run/infractl/drained ]; then
		reason=
		read -r reason </run/infractl/drained
		printf 'drained %s\n' "${reason:-for an unknown reason}"
	elif [ ! -x "$ready" ]; then
		printf 'unwell it has no %s; run infractl up first\n' "$ready"
	elif said=$(timeout 20 "$ready" 2>&1 </dev/null); then
		printf 'ready\n'
	else
		said=$(printf '%s\n' "$said" | sed '/^[[:space:]]*$/d' | tail -n 1)
		printf 'unwell %s\n' "${said:-its daemons are not healthy}"
	fi
}
