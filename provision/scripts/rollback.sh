# shellcheck shell=sh
# shellcheck disable=SC2154 # tx is set by the caller, the rest in common.sh
# Puts the previous files and units back. It is run by the change itself when it
# fails, by a timer when nobody confirmed the change, or after a reboot that came
# before either.

trouble=
booted=
trap '' HUP PIPE INT TERM

case ${1-} in
timer)
	# Only one of the timer and the confirmation may have its way.
	mkdir -- "$tx/decided" 2>/dev/null || exit 0
	;;
boot)
	# Whoever decided anything before did not live to see it done. A run that
	# has the lock already does this itself.
	mkdir -p -- "$run"
	exec 9>>"$run/lock"
	flock 9
	[ -e "$tx/armed" ] && [ ! -e "$tx/over" ] || exit 0
	booted=yes
	printf 'the host itself, which takes an unconfirmed change back\n' >"$run/holder"
	;;
esac

complain() {
	printf '%s\n' "$*"
	trouble=yes
}

# was NUMBER ACTIVE ENABLED says how a unit was. At boot every unit has met the new
# files, whether the change had got to it or not.
was() {
	if [ -n "$booted" ] && [ ! -e "$tx/touched/$1" ]; then
		printf '%s\n' "$2" "$3" >"$tx/touched/$1"
	fi
}

# before NUMBER tells how a unit was: sets $active and $enabled, or fails if the
# change did not get to it.
before() {
	active=''
	enabled=''
	[ -e "$tx/touched/$1" ] || return 1
	{
		read -r active
		read -r enabled
	} <"$tx/touched/$1"
	return 0
}

# halt NUMBER UNIT [all] stops a unit that did not run before the change, while its
# unit file is still there; with all, one that did too.
halt() {
	before "$1" || return 0
	if [ "$active" != active ] || [ -n "${3-}" ]; then
		systemctl stop -- "$2"
		systemctl reset-failed -- "$2" 2>/dev/null
	fi
	if [ "$enabled" != enabled ]; then
		systemctl --quiet disable -- "$2" 2>/dev/null
	fi
}

# restore NUMBER PATH [yet] puts a file back. With yet, one that was not there stays for
# now.
restore() {
	if [ -e "$tx/old/$1.absent" ]; then
		[ -n "${3-}" ] || rm -f -- "$2"
	elif [ -e "$tx/old/$1" ] || [ -L "$tx/old/$1" ]; then
		old=${2%/*}/.infractl-old-${2##*/}
		rm -f -- "$old"
		if ! { cp -a -- "$tx/old/$1" "$old" && mv -f -T -- "$old" "$2"; }; then
			complain "$2 could not be put back"
		fi
	fi
	rm -f -- "${2%/*}/.infractl-new-${2##*/}"
}

daemon_reload() {
	systemctl daemon-reload || complain "systemctl daemon-reload failed"
}

# resume NUMBER UNIT VERB ACTION COMMAND brings a unit that ran before back to its
# previous files. The command is what it wants to have run before.
resume() {
	before "$1" || return 0
	if [ -n "${5-}" ] && systemctl --quiet is-active -- "$2"; then
		hook "$4" "$5"
	fi
	if [ "$enabled" != masked ] && [ "$(readlink -- "/etc/systemd/system/$2")" = /dev/null ]; then
		systemctl --quiet unmask -- "$2" 2>/dev/null
	fi
	if [ "$enabled" = enabled ]; then
		systemctl --quiet enable -- "$2" 2>/dev/null
	fi
	if [ "$active" = active ]; then
		systemctl reset-failed -- "$2" 2>/dev/null
		verb=$3
		# It may run already, with the new files.
		[ -z "$booted" ] || [ "$verb" != start ] || verb=restart
		timeout 150 systemctl "$verb" -- "$2" || complain "systemctl $verb $2 failed"
	fi
	if [ "$enabled" = masked ]; then
		systemctl --quiet mask -- "$2" 2>/dev/null
	fi
}

# verify NUMBER UNIT SECONDS COMMAND ACTION AFTER sees whether it is healthy again,
# and runs what it wants to have run then.
verify() {
	before "$1" || return 0
	[ "$active" = active ] || return 0
	tries=$(($3 * 5))
	until [ -z "$4" ] || timeout 5 sh -c "$4" </dev/null >/dev/null 2>&1; do
		tries=$((tries - 1))
		if [ "$tries" -le 0 ]; then
			complain "$2 is not healthy with its previous files either"
			return 0
		fi
		sleep 0.2
	done
	[ -n "${6-}" ] || return 0
	# 127: the previous state knows no such command.
	hook "$5" "$6" || [ $? -eq 127 ] || complain "$2 runs again, but does not work"
}

# disown puts the previous manifest back: files that are not infractl's any more,
# such as one that a package brought, must not be removed later as if they were.
disown() {
	unmade
	if [ -e "$tx/manifest" ]; then
		mv -f -- "$tx/manifest" "$state/manifest"
	fi
}

# over ends with the status that says whether all is as it was.
over() {
	generation "${tx##*/} was taken back"
	: >"$tx/over"
	relax
	[ -z "$trouble" ] || exit 1
}
