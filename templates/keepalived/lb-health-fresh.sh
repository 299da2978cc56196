#!/bin/sh
# Managed by infractl: changes made here are put back.
# Exits 0 if infractl-lb-health has looked within the last 1.5 seconds and, with
# a second argument, if what it found was good. keepalived sees by itself when
# the answer changes, but only if the kernel grants it one more inotify instance;
# asking once a second is what remains when it does not.
# usage: lb-health-fresh FOLDER [fit]
set -eu

folder=$1

# look FILE sets $value to its line. Between the opening and the writing of a
# file it is empty, on a busy host for some milliseconds.
look() {
	for _ in 1 2 3 4 5 6 7 8; do
		value=
		if [ -e "$1" ]; then read -r value <"$1" || true; fi
		case $value in
		'' | *[!0-9]*) sleep 0.02 ;;
		*) return 0 ;;
		esac
	done
	echo "infractl-lb-health has not looked yet" >&2
	exit 1
}

look "$folder/lb-health-seen"
seen=$value
read -r now _ </proc/uptime
now=${now%.*}${now#*.}
if [ $((now - seen)) -ge 150 ]; then
	echo "infractl-lb-health has not looked for $((now - seen))0 ms" >&2
	exit 1
fi
if [ "${2-}" = fit ]; then
	look "$folder/lb-health"
	[ "$value" = 0 ]
fi
