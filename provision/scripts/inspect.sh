# shellcheck shell=sh
# shellcheck disable=SC2154 # state and nl are set in common.sh
# Says what is on this host, in sections that begin with a line that no file
# can contain, because $mark is random. Every call starts as few processes as
# possible: this runs on every host at every preview.

# section NAME
section() {
	printf '\n%s %s\n' "${mark:?}" "$1"
}

# remembered prints what infractl wrote down about this host, and the facts
# that are in files.
remembered() {
	section remembered
	grep -asH '' "$state/generation" "$state/manifest" "$state/originals/index" "$state"/loaded/* "$state"/trees/* \
		/etc/passwd /etc/group /etc/os-release /etc/debian_version
	section facts
	grep -asH -e '^MemTotal:' -e '^Cpus_allowed:' /proc/meminfo /proc/self/status
	stat -f --printf '%a %S\n' / 2>/dev/null
}

# files PATH... prints type, mode, owner, group, size, link and path of each that
# exists, and of those in the manifest, then the SHA-256 of the regular files
# among them. find empties its buffer before it starts another program, so the
# two kinds of record do not mix.
files() {
	section files
	known=$nl
	for path; do
		known=$known$path$nl
	done
	if [ -r "$state/manifest" ]; then
		while IFS= read -r path; do
			case $path in
			/*) ;;
			*) continue ;;
			esac
			case $known in
			*"$nl$path$nl"*) ;;
			*) set -- "$@" "$path" ;;
			esac
		done <"$state/manifest"
	fi
	[ $# -gt 0 ] || return 0
	find "$@" -maxdepth 0 \
		-printf '%y %m %u %g %s\0%l\0%p\0' \
		-type f -size -16777216c -exec sha256sum -z -- {} + 2>/dev/null
}

# units NAME...
units() {
	section units
	systemctl show --no-pager --property=Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,CanReload -- "$@" 2>&1
}

# packages NAME...
packages() {
	section packages
	dpkg-query --show --showformat '${db:Status-Status} ${Package} ${Version}\n' -- "$@" 2>/dev/null
}

# addresses prints which interface holds which address.
addresses() {
	section addresses
	ip -o address show 2>/dev/null
}

# contents PATH... prints the text of files, each in a section of its own.
contents() {
	for path; do
		section content
		head -c 262144 -- "$path" 2>/dev/null
	done
}

# finish proves that the output is complete.
finish() {
	section end
}
