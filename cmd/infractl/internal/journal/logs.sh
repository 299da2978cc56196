# shellcheck shell=sh
# Prints a log, for a reader that knows what it has read already. It is run as
# sh -c TEXT sh FUNCTION ARGUMENTS; lines that begin with @ are about the rest.

# The part of a file in which is looked for the place to begin, in lines.
window=100000

# journal CURSOR SINCE LINES PATTERN FOLLOW UNIT... prints entries as JSON: with a
# cursor those behind it, else as many as are wanted. With FOLLOW it goes on, and
# prints @live in between. Behind @cursor is where the journal ended before it was
# read; an entry that came meanwhile is printed twice.
journal() {
	cursor=$1 since=$2 lines=$3 pattern=$4 follow=$5
	shift 5
	for unit; do
		set -- "$@" "--unit=$unit"
		shift
	done
	set -- --quiet --no-pager --all --output=json \
		--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_COMM,_SYSTEMD_UNIT,UNIT,_PID,SYSLOG_PID \
		"$@"
	[ -z "$pattern" ] || set -- "$@" --case-sensitive=yes "--grep=$pattern"
	end=$(journalctl --quiet --no-pager --lines=1 --output=export --output-fields=_PID | sed -n 's/^__CURSOR=//p')
	echo "@cursor $end"
	status=0
	if [ -n "$cursor" ]; then
		journalctl "--after-cursor=$cursor" "$@" || status=$?
	else
		journalctl ${since:+"--since=@$since"} ${lines:+"--lines=$lines"} "$@" || status=$?
	fi
	# With a pattern, 1 means that no entry has it. Otherwise the journal could not be
	# read, as in the moment in which a file that a crash left is set aside.
	[ "$status" = 0 ] || { [ "$status" = 1 ] && [ -n "$pattern" ]; } || exit "$status"
	[ -n "$follow" ] || exit 0
	echo "@live"
	# Following shows nothing from before the host booted, whatever the cursor says.
	if [ -n "$end" ]; then
		journalctl --follow --no-tail "--after-cursor=$end" "$@"
	else
		journalctl --follow --lines=0 "$@"
	fi
}

# since_in FILE FORMAT SINCE prints how many of the file's last lines are not
# older than SINCE, in seconds of the epoch.
since_in() {
	case $2 in
	access) from=$(date -d "@$3" +%Y-%m-%dT%H:%M:%S) ;;
	*) from=$(date -u -d "@$3" '+%Y-%m-%d %H:%M:%S') ;;
	esac
	tail -n "$window" -- "$1" | awk -v format="$2" -v from="$from" '
		{ at = format == "access" ? substr($0, index($0, "[") + 1, 19) : substr($0, 1, 19) }
		!first && at ~ /^[0-9][0-9][0-9][0-9]-/ && at >= from { first = NR }
		END { print first ? NR - first + 1 : 0 }'
}

# matching_in FILE LINES PATTERN prints how many of the file's last lines it takes
# for LINES that have the pattern.
matching_in() {
	first=$(tail -n "$window" -- "$1" | grep -naP -- "$3" | tail -n "$2" | head -n 1)
	first=${first%%:*}
	all=$(tail -n "$window" -- "$1" | wc -l)
	echo "$((first == 0 ? 0 : all - first + 1))"
}

# end_of FILE FORMAT SINCE LINES PATTERN prints how many of its last lines to read.
end_of() {
	if [ ! -r "$1" ]; then
		echo 0
	elif [ -n "$3" ]; then
		since_in "$1" "$2" "$3"
	elif [ -n "$5" ] && [ "$4" != 0 ]; then
		matching_in "$1" "$4" "$5"
	else
		tail -n "$4" -- "$1" | wc -l
	fi
}

# having PATTERN prints those lines of its input that have the pattern.
having() {
	if [ -n "$1" ]; then
		grep --line-buffered -aP -- "$1"
	else
		cat
	fi
}

# file FORMAT SINCE LINES PATTERN FOLLOW FOLDER prints the end of a daemon's own
# file, and with FOLLOW what comes to it. Behind @backlog is how many lines are
# from before.
file() {
	format=$1 since=$2 lines=$3 pattern=$4 follow=$5
	case $format in
	access) path=$6/nginx/access.log ;;
	*) for path in "$6"/postgresql/postgresql-*-main.log; do :; done ;;
	esac
	now=$(end_of "$path" "$format" "$since" "$lines" "$pattern")
	have=$(tail -n "$now" -- "$path" 2>/dev/null | having "$pattern" | wc -l)
	# What is wanted may begin in the file that was in use before.
	before=0
	if [ -n "$since" ]; then
		[ "$now" -lt "$(tail -n "$window" -- "$path" 2>/dev/null | wc -l)" ] || before=$(end_of "$path.1" "$format" "$since" "" "")
	elif [ "$have" -lt "$lines" ]; then
		before=$(end_of "$path.1" "$format" "" "$((lines - have))" "$pattern")
	fi
	older=$(tail -n "$before" -- "$path.1" 2>/dev/null | having "$pattern" | wc -l)
	echo "@backlog $((older + have))"
	[ "$older" = 0 ] || tail -n "$before" -- "$path.1" | having "$pattern"
	if [ -n "$follow" ]; then
		tail -n "$now" -F -- "$path" 2>/dev/null | having "$pattern"
	else
		tail -n "$now" -- "$path" 2>/dev/null | having "$pattern"
	fi
	# Nothing that has the pattern is no failure.
	return 0
}

umask 077
"$@"
