# shellcheck shell=sh
# shellcheck disable=SC2034 # the variables are for the scripts that follow this one
# Common to all scripts: environment, and where infractl keeps things on a host.

LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
umask 077

# What must survive a reboot, and what must not.
state=/var/lib/infractl
run=/run/infractl
nl='
'

# The unit that takes an unconfirmed change back after a reboot, which the timer
# does not survive. It exists only as long as a change waits to be confirmed.
late=/etc/systemd/system/infractl-unconfirmed.service
wanted=/etc/systemd/system/multi-user.target.wants/infractl-unconfirmed.service

# relax removes that unit. systemd knows it at most by a link, and does nothing
# with it before the next boot.
relax() {
	rm -f -- "$wanted" "$late"
}

# unmade removes the directories that a change made in vain.
unmade() {
	[ -e "${tx:?}/made" ] || return 0
	while IFS= read -r directory; do
		rmdir -- "$directory" 2>/dev/null
	done <"$tx/made"
}

# hello tells the other side that this is a shell of root.
hello() {
	printf '@infractl\n'
}

# generation WORDS... names the state that the host is in now. It changes with
# every step after which a plan made before is worth nothing.
generation() {
	printf '%s\n' "$*" >"$state/generation.new" && mv -f -- "$state/generation.new" "$state/generation"
}

# hook ACTION COMMAND runs what a unit wants to have run around a change of it.
hook() {
	ACTION=$1 timeout 120 sh -c "umask 022; $2" </dev/null 9>&-
}
