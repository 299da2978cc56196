#!/bin/sh
# Managed by infractl: changes made here are put back.
# Follows keepalived and claims the floating IPs when this host is the master.
# usage: vip FOLDER CURL_CONFIG, with VIP_API, VIP_SERVER and VIP_ADDRESSES set
#
# Everything that happens comes through one FIFO, line by line: what keepalived
# says, and the alarms that this script sets for itself. So nothing happens out
# of order, and a retry is never in the way of the news that it is pointless.
#
# Becoming the master claims at once. Besides, the master asks the API every ten
# seconds who has the floating IPs. If it is another host, that may be a mistake
# that has to be put right, or the sign that this host stood still and has not
# yet heard of its own replacement; so it asks again a little later, when in the
# second case keepalived has told it better. Two hosts that cannot hear each
# other and both believe to be the master would take the address from each other
# forever; so each time that it has to be claimed back, the little later is
# twice as late.
set -eu

folder=$1 config=$2
fifo=$folder/vrrp.fifo
period=10        # seconds between looks
patience_min=2   # seconds until the second look
patience_max=300
newline='
'

# now sets $time to the hundredths of a second since boot, without a process.
now() {
	read -r time _ </proc/uptime
	time=${time%.*}${time#*.}
}

# alarm SECONDS WORD NUMBER sends word and number to the FIFO later. Of each kind
# only the alarm with the latest number counts: see the loop.
alarm() {
	after=$1
	shift
	(
		sleep "$after"
		echo "$*" >&3
	) &
}

# ask METHOD PATH [BODY] sets $status (000: no answer) and $answer.
ask() {
	answer=$(curl --config "$config" --silent --noproxy '*' --connect-timeout 2 --max-time 6 \
		--request "$1" --header 'Content-Type: application/json' ${3:+--data "$3"} \
		--write-out '\n%{http_code}' "$VIP_API$2" 3<&-) || true
	status=${answer##*"$newline"}
	answer=${answer%"$newline"*}
	case $status in [1-5][0-9][0-9]) ;; *) status=000 ;; esac
}

# field PATH prints a field of $answer, or nothing.
field() {
	printf '%s' "$answer" | jq --raw-output "$1 // empty" 2>/dev/null || true
}

# holder ID sets $holder to the ID of the server that the API says has it,
# "nobody", or "" if the API does not say.
holder() {
	ask GET "/floating_ips/$1"
	holder=
	if [ "$status" = 200 ]; then
		holder=$(printf '%s' "$answer" | jq --raw-output '.floating_ip | if .server == null then "nobody" else .server end' 2>/dev/null) || holder=
	fi
}

# finish waits until the action in $answer has ended, and fails if it failed.
finish() {
	action=$(field .action.id)
	polls=0
	while :; do
		case $(field .action.status) in
		success) return 0 ;;
		running) ;;
		*) return 1 ;;
		esac
		polls=$((polls + 1))
		[ "$polls" -le 20 ] || return 1
		sleep 0.2
		ask GET "/actions/$action"
		[ "$status" = 200 ] || return 1
	done
}

# claim ID ADDRESS makes this host the holder. Fails if that did not work, with
# the seconds to wait in $wait.
claim() {
	now
	began=$time
	ask POST "/floating_ips/$1/actions/assign" "{\"server\":$VIP_SERVER}"
	accepted=$time
	case $status in
	200 | 201)
		now
		accepted=$time
		if finish; then
			now
			echo "claimed $2 for server $VIP_SERVER: accepted after $(((accepted - began) * 10)) ms, done after $(((time - began) * 10)) ms"
			return 0
		fi
		echo "claiming $2: the cloud's action ended with \"$(field .action.error.message)\" (status $status)" >&2
		;;
	000) echo "claiming $2: no answer from $VIP_API" >&2 ;;
	*) echo "claiming $2: the API answers $status, \"$(field .error.code): $(field .error.message)\"" >&2 ;;
	esac
	case $status in
	401 | 403) wait=10 ;; # a wrong token does not become right soon
	429) wait=5 ;;        # 3600 calls an hour: one comes free each second
	*) wait=0 ;;          # busy, locked, out of order: as soon as possible
	esac
	# The answer may have been lost, or the cloud may call it an error to be
	# given what one has.
	holder "$1"
	if [ "$holder" = "$VIP_SERVER" ]; then
		now
		echo "claimed $2 for server $VIP_SERVER: done after $(((time - began) * 10)) ms"
		return 0
	fi
	return 1
}

# claim_all claims what is not ours, and sets an alarm to try again.
claim_all() {
	missing=
	for pair in $VIP_ADDRESSES; do
		if ! claim "${pair%%=*}" "${pair#*=}"; then
			missing=yes
			[ "$wait" != 0 ] || wait=$backoff
		fi
	done
	if [ -n "$missing" ]; then
		retry=$((retry + 1))
		alarm "$wait" "RETRY $retry"
		# 0.2, 0.4, 0.8 … at most 10 seconds.
		case $backoff in
		0.2) backoff=0.4 ;; 0.4) backoff=0.8 ;; 0.8) backoff=2 ;; 2) backoff=5 ;; *) backoff=10 ;;
		esac
	else
		backoff=0.2
	fi
}

# strangers prints the addresses that the API says another host has, and which.
strangers() {
	for pair in $VIP_ADDRESSES; do
		holder "${pair%%=*}"
		if [ -n "$holder" ] && [ "$holder" != "$VIP_SERVER" ]; then
			printf '%s, held by server %s; ' "${pair#*=}" "$holder"
		fi
	done
}

[ -p "$fifo" ] || mkfifo "$fifo"
# For reading and writing, so that it never ends when keepalived does.
exec 3<>"$fifo"

state=UNKNOWN look=0 second=0 retry=0 backoff=0.2 patience=$patience_min patience_since=0 waiting=
# What keepalived said last counts as long as it runs: this script may have been
# restarted alone.
if [ -r "$folder/vip-state" ] && [ -r /run/keepalived.pid ] && kill -0 "$(cat /run/keepalived.pid)" 2>/dev/null; then
	read -r state <"$folder/vip-state"
	echo "started again as $state"
	if [ "$state" = MASTER ]; then
		look=$((look + 1))
		alarm 1 "LOOK $look"
	fi
else
	echo "started, waiting for keepalived"
fi

while IFS= read -r line <&3; do
	case $line in
	'INSTANCE "vip" MASTER '*)
		state=MASTER backoff=0.2 patience=$patience_min
		echo MASTER >"$folder/vip-state"
		echo "this load balancer is the master"
		second=$((second + 1)) retry=$((retry + 1)) look=$((look + 1)) waiting=
		claim_all
		alarm "$period" "LOOK $look"
		;;
	'INSTANCE "vip" MASTER_RX_LOWER_PRI '*)
		# Another host believed to be the master for a moment.
		if [ "$state" = MASTER ]; then
			look=$((look + 1))
			alarm 1 "LOOK $look"
		fi
		;;
	'INSTANCE "vip" '*)
		state=${line#'INSTANCE "vip" '}
		state=${state%% *}
		echo "$state" >"$folder/vip-state"
		echo "this load balancer is no master: $state"
		second=$((second + 1)) retry=$((retry + 1)) look=$((look + 1)) waiting=
		;;
	"RETRY $retry")
		[ "$state" != MASTER ] || claim_all
		;;
	"LOOK $look")
		[ "$state" = MASTER ] || continue
		found=$(strangers)
		if [ -n "$found" ] && [ -z "$waiting" ]; then
			now
			# Peace for ten minutes, and the past is forgotten.
			if [ $((time - patience_since)) -gt 60000 ]; then patience=$patience_min; fi
			second=$((second + 1)) waiting=yes
			alarm "$patience" "SECOND $second"
		fi
		look=$((look + 1))
		alarm "$period" "LOOK $look"
		;;
	"SECOND $second")
		waiting=
		[ "$state" = MASTER ] || continue
		found=$(strangers)
		if [ -n "$found" ]; then
			echo "this load balancer is the master, but does not have ${found}claiming it"
			now
			patience_since=$time
			patience=$((patience * 2))
			[ "$patience" -le "$patience_max" ] || patience=$patience_max
			claim_all
		fi
		;;
	esac
done
