# shellcheck shell=sh
# shellcheck disable=SC2154 # run is set in common.sh
# For a new connection while a change is under way.

# confirm TX tells a guarded change that the host can still be reached.
confirm() {
	if [ ! -d "$1" ]; then
		printf 'the change is not there any more\n' >&2
		exit 1
	fi
	: >"$1/confirmed"
}

# outcome LOG SECONDS waits for the end of a change whose connection was lost, and
# prints what it reported. Who holds the lock is at work; if nobody does and the
# change did not report its end, it was killed.
outcome() {
	exec 9>>"$run/lock"
	flock -w "$2" 9 || exit 1
	cat -- "$1"
	grep -Eq '^@(done|fail)' "$1" || printf '@fail killed unknown\n'
}
