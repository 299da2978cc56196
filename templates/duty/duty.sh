#!/bin/sh
# Managed by infractl: changes made here are put back.
# Takes this host out of service and puts it back, without dropping a request.
# It has several names:
#
#	drain SECONDS REASON     take no new work and wait, for SECONDS at most, until
#	                         none is left. Status 3: some is left, and how much is
#	                         in /run/infractl/drained.left
#	undrain                  take work again; returns when the host does
#	ready                    status 0 if the host is fit for work and not drained
#	restart                  restart the daemons that serve, one after the other
#	duty before|after UNIT   called around a change of a unit, with stop, start,
#	                         restart or reload in ACTION
#
# What that means is in a file for each of the host's tiers, in the folder tiers:
#
#	stop_taking SECONDS   in_flight   take   serves   healthy   restart_daemons
#	before UNIT   after UNIT
#
# A host that booted is not drained, and one that was drained for a change takes
# work again by itself after some minutes, in case that whoever made the change
# is gone.
set -eu
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

here=/usr/local/lib/infractl
run=/run/infractl
mark=$run/drained
# How long a drain for a change may last, in seconds.
longest=300

# now prints whole seconds that no change of the clock touches.
now() {
	read -r seconds _ </proc/uptime
	printf '%s' "${seconds%.*}"
}

# reason prints why the host is drained; it fails if it is not.
reason() {
	[ -e "$mark" ] || return 1
	cat "$mark"
}

# tiers FUNCTION ARGUMENTS... calls a function of every tier and fails if one does.
tiers() {
	failed=
	for tier in "$here"/tiers/*; do
		# shellcheck source=/dev/null
		(. "$tier" && "$@") || failed=yes
	done
	[ -z "$failed" ]
}

# empty SECONDS waits until nothing is in flight. It fails with what is left in $left.
empty() {
	until=$(($(now) + $1))
	while :; do
		left=$(tiers in_flight) && left=$(printf '%s\n' "$left" | awk '{ n += $1 } END { print n + 0 }') || left=unknown
		[ "$left" != 0 ] || return 0
		[ "$(now)" -lt "$until" ] || return 1
		sleep 0.1
	done
}

drain() {
	[ $# -eq 2 ] || {
		echo "usage: drain SECONDS REASON" >&2
		exit 2
	}
	rm -f "$mark.left"
	printf '%s\n' "$2" >"$mark.new"
	mv -f "$mark.new" "$mark"
	systemctl stop infractl-undrain.timer 2>/dev/null || :
	if [ "$2" = change ]; then
		systemd-run --quiet --collect --unit=infractl-undrain --on-active="$longest" "$here/undrain" || :
	fi
	if ! tiers stop_taking "$1"; then
		undrain
		exit 1
	fi
	empty "$1" || {
		echo "$left in flight" | tee "$mark.left" >&2
		exit 3
	}
}

# release takes work again, without waiting for it.
release() {
	tiers take || :
	rm -f "$mark" "$mark.left"
}

undrain() {
	release
	until=$(($(now) + 60))
	until tiers healthy; do
		[ "$(now)" -lt "$until" ] || {
			echo "it takes work again, but is not healthy after 60 s" >&2
			exit 1
		}
		sleep 0.2
	done
	systemctl stop infractl-undrain.timer 2>/dev/null || :
}

# aside SECONDS takes the host out of service for a change, unless it is already,
# or has never been in service.
aside() {
	serves || return 0
	reason >/dev/null || "$here/drain" "$1" change || [ $? -eq 3 ]
}

# unfit ends what a change began on a host that is not fit for work: nobody sends
# it any, and whoever mends it need not put it back.
unfit() {
	[ "$(reason)" != change ] || release
	return 1
}

# back puts it back, if it is out of service for a change.
back() {
	[ "$(reason)" != change ] || "$here/undrain"
}

# One at a time. Those that are called from here inherit the lock.
mkdir -p "$run"
if [ "${INFRACTL_DUTY-}" != held ] && [ "${0##*/}" != ready ]; then
	exec 8>>"$run/duty.lock"
	flock -w 180 8 || {
		echo "another drain, undrain or restart is under way" >&2
		exit 1
	}
	INFRACTL_DUTY=held
	export INFRACTL_DUTY
fi

case ${0##*/} in
drain) drain "$@" ;;
undrain) undrain ;;
ready)
	if reason; then exit 1; fi
	tiers healthy
	;;
restart) tiers restart_daemons ;;
duty)
	case ${1-} in
	before | after) tiers "$@" ;;
	*) exit 2 ;;
	esac
	;;
*) exit 2 ;;
esac
