#!/bin/sh
# Managed by infractl: changes made here are put back.
# Asks HAProxy over and over whether this load balancer can serve, and writes
# the answer to $1/lb-health: 0 for yes, 1 for no. keepalived gives the virtual IP
# away as soon as it reads a 1. usage: lb-health FOLDER URL
#
# One curl asks for as long as it runs, so that a check costs a connection and no
# process; it prints one line for each answer, also for those that did not come
# (to its error output, since the other one waits until there are 4 KiB).
# Two failures in a row mean no; only three seconds without a failure mean yes
# again, so that the virtual IP does not go back and forth. While $1/lb-yield
# exists the answer is no at once: this load balancer steps aside.
#
# The time of the last look is in $1/lb-health-seen, in hundredths of a second
# since the host booted: lb-health-fresh reads it. A long time without a line
# means that the whole host stood still. By then another load balancer has taken
# over, so the answer is no, as after any failure.
set -eu

folder=$1 url=$2
interval_ms=125  # as in --rate below
limit_ms=300     # as in --max-time below
jump=90          # hundredths of a second without a line: twice what the limits above allow
rise=300         # hundredths of a second without a failure until the answer is yes

say() {
	# One write, so that no reader finds an empty file.
	printf '%s\n' "$1" >"$folder/lb-health"
}

# now sets $time to the hundredths of a second since boot, without a process.
now() {
	read -r time _ </proc/uptime
	time=${time%.*}${time#*.}
}

now
answer=1 failures=0 good_since=$time last=$time
say 1
echo "watching $url every ${interval_ms} ms, for at most ${limit_ms} ms each"

curl --silent --output /dev/null --noproxy '*' --header 'Connection: close' \
	--rate 480/m --max-time 0.3 --write-out '%{stderr}%{http_code}\n' "$url?[1-1000000000]" 2>&1 |
	while read -r code; do
		now
		gap=$((time - last)) last=$time
		if [ "$gap" -ge "$jump" ]; then
			failures=2 good_since=$time
			if [ "$answer" = 0 ]; then
				answer=1
				say 1
				echo "this host stood still for ${gap}0 ms: not fit to serve until it has run for ${rise}0 ms"
			fi
		fi
		printf '%s\n' "$time" >"$folder/lb-health-seen"
		if [ -e "$folder/lb-yield" ]; then
			failures=2 good_since=$time
			if [ "$answer" = 0 ]; then
				answer=1
				say 1
				echo "this load balancer steps aside"
			fi
		elif [ "$code" = 200 ]; then
			failures=0
			if [ "$answer" = 1 ] && [ $((time - good_since)) -ge "$rise" ]; then
				answer=0
				say 0
				echo "HAProxy can serve"
			fi
		else
			failures=$((failures + 1)) good_since=$time
			if [ "$answer" = 0 ] && [ "$failures" -ge 2 ]; then
				answer=1
				say 1
				case $code in
				000) echo "HAProxy does not answer" ;;
				503) echo "HAProxy reaches no web host" ;;
				*) echo "HAProxy answers $code" ;;
				esac
			fi
		fi
	done

# curl ends by itself only after years, or because it could not run.
say 1
exit 1
