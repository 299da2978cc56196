#!/bin/sh
# Managed by infractl: changes made here are put back.
# Exits 0 if infractl-lb-health has looked within the last 1.5 seconds and, with
# a second argument, if what it found was good. keepalived sees by itself when
# the answer changes, but only if the kernel grants it one more inotify instance;
# asking once a second is what remains when it does not.
# usage: lb-health-fresh FOLDER [fit]
set -eu

folder=$1
if ! [ -s "$folder/lb-health-seen" ]; then
	echo "infractl-lb-health has not looked yet" >&2
	exit 1
fi
read -r seen <"$folder/lb-health-seen"
read -r now _ </proc/uptime
now=${now%.*}${now#*.}
if [ $((now - seen)) -ge 150 ]; then
	echo "infractl-lb-health has not looked for $((now - seen))0 ms" >&2
	exit 1
fi
if [ "${2-}" = fit ]; then
	read -r answer <"$folder/lb-health"
	[ "$answer" = 0 ]
fi
