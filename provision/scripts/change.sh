# shellcheck shell=sh
# shellcheck disable=SC2154 # state, run and nl are set in common.sh, tx by the caller
# Carries out a change. What it says to the other side is one line each:
#
#	@step TEXT        what happens now
#	@ask WORD ARG     the other side has to do something
#	@text TEXT        one line of the explanation of the @fail that follows
#	@fail CODE FLAG   the end, failed; FLAG says whether the previous state is back
#	@done             the end
#
# From the moment on at which it may go on without the other side, all of this
# is also in $log, for a side that comes back.

id=${tx##*/}
log=
swapping=
policy=/usr/sbin/policy-rc.d
# PIPE and HUP come when the connection is lost. They are caught, not ignored,
# so that programs started from here do not inherit that.
trap : PIPE HUP

say() {
	printf '@%s\n' "$*" 2>/dev/null
	[ -z "$log" ] || printf '@%s\n' "$*" >>"$log"
}

# explain FILE prints the end of a file as the explanation of a failure.
explain() {
	tail -n 40 -- "$1" 2>/dev/null | while IFS= read -r line; do
		say text "$line"
	done
}

# fail CODE [TEXT] ends the change. Files that were swapped in are taken out again.
fail() {
	[ -z "${2-}" ] || say text "$2"
	if [ -n "$swapping" ]; then
		mkdir -- "$tx/decided" 2>/dev/null
		say step "putting the previous state back"
		if sh "$tx/stage/rollback.sh" >"$tx/rollback.out" 2>&1 9>&-; then
			say fail "$1" reverted
		else
			say text "putting the previous state back failed:"
			explain "$tx/rollback.out"
			say fail "$1" stuck
		fi
		generation "$id was taken back"
		disarm
	else
		unprepare "$tx"
		unmade
		if [ -e "$tx/manifest" ]; then
			mv -f -- "$tx/manifest" "$state/manifest"
		fi
		say fail "$1" untouched
	fi
	leave
	exit 1
}

# attempt CODE COMMAND... runs a command that must succeed before anything was changed.
attempt() {
	code=$1
	shift
	if ! "$@" >"$tx/out" 2>&1 9>&-; then
		if grep -qs 'No space left on device' "$tx/out"; then
			code=space
		fi
		explain "$tx/out"
		fail "$code" "command: $1"
	fi
}

# unprepare TX removes new files that never got into their places.
unprepare() {
	[ -e "$1/prepared" ] || return 0
	while IFS= read -r path; do
		beside "$path"
		rm -f -- "$new"
	done <"$1/prepared"
}

# leave removes what a change needs only while it is under way.
leave() {
	allow_daemons
	relax
	rm -rf -- "$tx"
	: >"$run/holder"
}

# explain_packages says what apt and dpkg complained about.
explain_packages() {
	grep -E '^(E|Err|W|dpkg|Errors?|subprocess|[a-z-]+: (error|fatal))[: ]' "$tx/out" >"$tx/complaints"
	if [ -s "$tx/complaints" ]; then
		explain "$tx/complaints"
	else
		explain "$tx/out"
	fi
}

# begin SECONDS GENERATION takes the host's lock, or says who has it. Where another
# change was made since this one was planned, it has to be planned anew.
begin() {
	mkdir -p -- "$run" "$state/tx" "$state/log" "$state/loaded" "$state/trees" || fail write
	exec 9>>"$run/lock"
	if ! flock -n 9; then
		read -r other <"$run/holder" || other="another run"
		say step "waiting for the host's lock, held by $other"
		if ! flock -w "$1" 9; then
			read -r other <"$run/holder" || other="another run"
			say text "held by $other"
			say fail locked untouched
			exit 1
		fi
	fi
	printf '%s since %s\n' "${holder:?}" "$(date -u +%H:%M:%S) UTC" >"$run/holder"
	# With the lock held, whatever lies here is from a run that died.
	allow_daemons
	# A change that waits for its confirmation is being taken back by its
	# timer; that has to happen before anything new.
	for old in "$state"/tx/*; do
		[ -d "$old" ] || continue
		unprepare "$old"
		generation "$id cleans up"
		[ -e "$old/armed" ] || continue
		say step "taking an unconfirmed change back first"
		# The timer does not begin now. If it has begun, it is waited for; and
		# what was begun before a reboot, and never ended, is done again.
		mkdir "$old/decided" 2>/dev/null
		systemctl stop "infractl-revert-${old##*/}.timer" 2>/dev/null 9>&-
		tries=600
		while systemctl --quiet is-active "infractl-revert-${old##*/}.service" 9>&- && [ "$tries" -gt 0 ]; do
			tries=$((tries - 1))
			sleep 0.1
		done
		[ -e "$old/over" ] || sh "$old/stage/rollback.sh" >/dev/null 2>&1 9>&-
	done
	relax
	rm -rf -- "$state"/tx/*
	# Where nothing is infractl's, it has nothing to give back.
	[ -s "$state/manifest" ] || rm -rf -- "$state/originals"
	# shellcheck disable=SC2012 # names here are made of digits and letters
	ls -1t "$state/log" | tail -n +11 | while IFS= read -r old; do
		rm -f -- "$state/log/$old"
	done
	now=
	[ ! -e "$state/generation" ] || IFS= read -r now <"$state/generation"
	if [ "$now" != "$2" ]; then
		: >"$run/holder"
		say fail stale untouched
		exit 1
	fi
	mkdir -- "$tx" "$tx/stage" "$tx/old" "$tx/touched" || fail space
}

# receive BYTES unpacks the new files.
receive() {
	head -c "$1" | tar -x -f - -C "$tx/stage" --no-same-owner 2>"$tx/out"
	if [ ! -e "$tx/stage/complete" ]; then
		if grep -qs 'No space left on device' "$tx/out"; then
			fail space "the new files do not fit into $state"
		fi
		explain "$tx/out"
		fail write "the new files did not arrive completely"
	fi
}

# deny_daemons keeps packages from starting daemons with the configuration that
# they come with: invoke-rc.d asks this script (invoke-rc.d(8)).
deny_daemons() {
	if [ -e "$policy" ]; then
		mv -f -- "$policy" "$policy.infractl-saved"
	fi
	printf '#!/bin/sh\n# infractl: no daemon starts before it is configured\nexit 101\n' >"$policy.infractl-new"
	chmod 0755 "$policy.infractl-new"
	mv -f -- "$policy.infractl-new" "$policy"
}

allow_daemons() {
	if grep -qs '^# infractl:' "$policy"; then
		rm -f -- "$policy"
	fi
	if [ -e "$policy.infractl-saved" ]; then
		mv -f -- "$policy.infractl-saved" "$policy"
	fi
}

# apt ARGUMENTS... DPkg::Lock::Timeout waits for another apt, in seconds.
apt() {
	DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1 \
		apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=2 -o Dpkg::Use-Pty=0 \
		-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
		"$@" >>"$tx/out" 2>&1 </dev/null 9>&-
}

# refresh reads the lists of packages; its lock is not waited for by apt itself.
refresh() {
	say step "reading package lists"
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
		: >"$tx/out"
		apt update && return 0
		grep -q 'Could not get lock' "$tx/out" || return 1
		sleep 5
	done
	return 1
}

# install PACKAGES...
install() {
	deny_daemons
	: >"$tx/out"
	lists=
	for list in /var/lib/apt/lists/*_Packages*; do
		[ ! -e "$list" ] || lists=yes
	done
	if [ -z "$lists" ]; then
		refresh || {
			explain_packages
			fail packages "the package lists could not be read"
		}
	fi
	say step "installing $*"
	if ! apt install --no-install-recommends --no-remove -- "$@"; then
		# Either dpkg was interrupted once, maybe before all that a package needs
		# was there, or the lists are old. Each has a remedy that is safe to try.
		DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a >>"$tx/out" 2>&1 </dev/null 9>&-
		refresh
		apt install --no-install-recommends --no-remove --fix-broken
		say step "installing $*"
		if ! apt install --no-install-recommends --no-remove -- "$@"; then
			if grep -q 'No space left on device\|enough free space' "$tx/out"; then
				explain_packages
				fail space
			fi
			explain_packages
			fail packages
		fi
	fi
	allow_daemons
}

# user NAME HOME GROUPS makes a system user, or changes it; GROUPS has commas.
user() {
	say step "user $1"
	if getent passwd "$1" >/dev/null; then
		attempt users usermod --home "$2" "$1"
	elif getent group "$1" >/dev/null; then
		attempt users useradd --system --no-create-home --home-dir "$2" --shell /usr/sbin/nologin --gid "$1" -- "$1"
	else
		attempt users useradd --system --no-create-home --home-dir "$2" --shell /usr/sbin/nologin --user-group -- "$1"
	fi
	[ -z "$3" ] || attempt users usermod --append --groups "$3" "$1"
}

# parents PATH makes the directories above a path. Here and below, each process that
# need not be started counts: a change has dozens of files.
parents() {
	[ -d "${1%/*}" ] || (
		umask 022
		mkdir -p -- "${1%/*}"
	)
}

# tree PATH DIGEST KEY receives a directory as pieces of a compressed archive,
# each after a line with its length; 0 ends it.
tree() {
	say step "uploading $1"
	parents "$1/" || fail write
	new=${1%/*}/.infractl-new-${1##*/}
	rm -rf -- "$new"
	mkdir -m 0755 -- "$new" || fail write
	say ask tree "$1"
	while IFS= read -r length; do
		case $length in
		0)
			: >"$tx/complete"
			break
			;;
		*[!0-9]* | '') break ;;
		esac
		head -c "$length"
	done | tar -x -z -p -f - -C "$new" --no-same-owner 2>"$tx/out"
	if [ ! -e "$tx/complete" ] || [ -s "$tx/out" ]; then
		rm -rf -- "$new"
		if grep -qs 'No space left on device' "$tx/out"; then
			fail space "$1 does not fit"
		fi
		explain "$tx/out"
		fail write "$1 did not arrive completely"
	fi
	rm -f -- "$tx/complete"
	sync -f -- "$new"
	rm -f -- "$state/trees/$3"
	rm -rf -- "$1"
	attempt write mv -T -- "$new" "$1"
	printf '%s\n' "$1" "$2" "$(date +%s)" >"$tx/out" && mv -f -- "$tx/out" "$state/trees/$3"
}

# remove_tree PATH KEY
remove_tree() {
	rm -f -- "$state/trees/$2"
	rm -rf -- "$1"
}

# validate runs the daemons' checkers in a mount namespace where the new files
# are in place already.
validate() {
	say step "checking the new configuration"
	if ! unshare --mount sh "$tx/stage/validate.sh" >"$tx/out" 2>&1 </dev/null 9>&-; then
		if grep -qs 'No space left on device' "$tx/out"; then
			fail space
		fi
		explain "$tx/out"
		fail validate
	fi
}

# point_of_no_return asks whether the other side still wants it. From here on it
# may go away: the change is carried out, or taken back, without it.
point_of_no_return() {
	say ask commit
	IFS= read -r answer || answer=
	if [ "$answer" != commit ]; then
		say fail canceled untouched
		leave
		exit 1
	fi
	trap '' INT TERM
	log=$state/log/$id
	: >"$log"
	generation "$id begins" || fail space
}

# save NUMBER PATH keeps the previous version of a file.
save() {
	if [ -d "$2" ] && [ ! -L "$2" ]; then
		fail write "$2 is a directory"
	elif [ -e "$2" ] || [ -L "$2" ]; then
		ln -P -- "$2" "$tx/old/$1" 2>/dev/null || attempt write cp -a -- "$2" "$tx/old/$1"
	else
		: >"$tx/old/$1.absent"
	fi
}

# originals LINES... begins the index of what stood in places that infractl
# takes, and of how units were; the lines are what it says already.
originals() {
	mkdir -p -- "$state/originals" || fail space
	: >"$tx/index" || fail space
	[ $# -eq 0 ] || printf '%s\n' "$@" >"$tx/index" || fail space
}

# keep KEY PATH copies what stands in a place that infractl takes. It counts only
# when it is in the index.
keep() {
	if [ -d "$2" ] && [ ! -L "$2" ]; then
		return 0
	fi
	if ! [ -e "$2" ] && ! [ -L "$2" ]; then
		return 0
	fi
	attempt write cp -a -T --remove-destination -- "$2" "$state/originals/$1"
	printf 'file %s %s\n' "$1" "$2" >>"$tx/index" || fail space
}

# made DIRECTORIES... notes those that do not exist and are about to be made, and
# those above them.
made() {
	for directory; do
		while [ -n "$directory" ] && [ ! -d "$directory" ]; do
			printf 'dir %s\n' "$directory" >>"$tx/index" || fail space
			printf '%s\n' "$directory" >>"$tx/made" || fail space
			directory=${directory%/*}
		done
	done
}

# unmake DIRECTORIES... removes those that are empty.
unmake() {
	rmdir -- "$@" 2>/dev/null
}

# note_originals puts the index into its place once all that it names is on the disk.
note_originals() {
	! cmp -s -- "$tx/index" "$state/originals/index" || return 0
	attempt write cp -- "$tx/index" "$state/originals/index.new"
	attempt write sync_files "$state/originals"/* "$state/originals"
	attempt write mv -f -- "$state/originals/index.new" "$state/originals/index"
	attempt write sync -- "$state/originals"
}

# sync_files PATHS... writes those that are files or directories to the disk; what
# a link points to is no business of sync's here.
sync_files() {
	for path; do
		shift
		if [ ! -L "$path" ] && { [ -f "$path" ] || [ -d "$path" ]; }; then
			set -- "$@" "$path"
		fi
	done
	sync -- "$@"
}

# release KEYS... drops copies of what is back in its place.
release() {
	while IFS= read -r line; do
		key=${line#file }
		case " $* " in
		*" ${key%% *} "*) ;;
		*) printf '%s\n' "$line" ;;
		esac
	done <"$state/originals/index" >"$tx/index"
	note_originals
	for key; do
		rm -f -- "$state/originals/$key"
	done
}

# forget_originals drops all of them, the index first.
forget_originals() {
	rm -f -- "$state/originals/index"
	rm -rf -- "$state/originals"
}

# beside PATH sets new to where the new version of a file stands before it is renamed;
# no daemon's "include *" matches a name with a leading dot.
beside() {
	new=${1%/*}/.infractl-new-${1##*/}
}

# prepare NUMBER PATH MODE OWNER GROUP puts a new file beside the old one.
prepare() {
	printf '%s\n' "$2" >>"$tx/prepared" || fail space
	attempt write parents "$2"
	beside "$2"
	attempt write command install -T -m "$3" -o "$4" -g "$5" -- "$tx/stage/$1" "$new"
}

# prepare_link PATH TARGET
prepare_link() {
	printf '%s\n' "$1" >>"$tx/prepared" || fail space
	attempt write parents "$1"
	beside "$1"
	rm -f -- "$new"
	attempt write ln -s -- "$2" "$new"
}

# prepare_original PATH KEY puts what stood there before infractl beside a file.
prepare_original() {
	printf '%s\n' "$1" >>"$tx/prepared" || fail space
	attempt write parents "$1"
	beside "$1"
	rm -f -- "$new"
	attempt write cp -a -T -- "$state/originals/$2" "$new"
}

# flush PATHS... writes the new versions to the disk, so that a crash of the host
# does not leave an empty file behind the rename.
flush() {
	for path; do
		shift
		beside "$path"
		# sync would follow a link.
		[ -L "$new" ] || set -- "$@" "$new"
	done
	[ $# -eq 0 ] || attempt write sync -- "$@"
}

# swap PATH
swap() {
	swapping=yes
	beside "$1"
	mv -f -T -- "$new" "$1" >"$tx/out" 2>&1 || {
		explain "$tx/out"
		fail write
	}
}

# flush_directories DIRS... makes the renames survive a crash of the host.
flush_directories() {
	for directory; do
		shift
		[ ! -d "$directory" ] || set -- "$@" "$directory"
	done
	[ $# -eq 0 ] || sync -- "$@" 2>/dev/null
}

# gone PATH removes a file.
gone() {
	swapping=yes
	rm -f -- "$1"
}

# manifest PATHS... writes down which files are infractl's.
manifest() {
	if [ ! -e "$tx/manifest" ]; then
		cp -- "$state/manifest" "$tx/manifest" 2>/dev/null || : >"$tx/manifest"
	fi
	if [ $# -gt 0 ]; then
		printf '%s\n' "$@"
	fi >"$state/manifest.new" || fail space "infractl's notes could not be written"
	attempt write sync -- "$state/manifest.new"
	attempt write mv -f -- "$state/manifest.new" "$state/manifest"
}

# arm SECONDS starts the timer that takes the change back if nobody confirms it,
# and sees to it that a reboot in the meantime takes it back too.
arm() {
	attempt write prepare_late
	: >"$tx/armed"
	# All that is needed then has to be on the disk before anything changes.
	attempt write sync_files "$tx"/old/* "$tx/stage/rollback.sh" "$tx/armed" "$tx/old" "$tx/stage" "$tx" "${tx%/*}" \
		"$late" "${late%/*}" "${wanted%/*}"
	attempt unit systemd-run --quiet --collect --unit="infractl-revert-$id" --on-active="$1" \
		--timer-property=AccuracySec=100ms -- /bin/sh "$tx/stage/rollback.sh" timer
}

# prepare_late writes the unit. It runs once everything else is up, since units
# that are still starting cannot be put back.
prepare_late() (
	umask 022
	mkdir -p -- "${wanted%/*}" && cat >"$late.new" <<END && mv -f -- "$late.new" "$late" && ln -sf -- "$late" "$wanted"
# infractl takes back what nobody confirmed before a reboot.
[Unit]
Description=infractl: take back a change that nobody confirmed
ConditionPathExists=$tx/armed
After=multi-user.target

[Service]
ExecStart=/bin/sh $tx/stage/rollback.sh boot
END
)

disarm() {
	[ -e "$tx/armed" ] || return 0
	rm -f -- "$tx/armed"
	systemctl stop "infractl-revert-$id.timer" >/dev/null 2>&1 9>&-
}

# confirm SECONDS waits until a new connection has shown that the host can still be reached.
confirm() {
	say ask confirm "$tx"
	tries=$(($1 * 10))
	while [ ! -e "$tx/confirmed" ]; do
		tries=$((tries - 1))
		if [ "$tries" -le 0 ] || [ -e "$tx/decided" ]; then
			fail unconfirmed "no new connection within $1 s"
		fi
		sleep 0.1
	done
	mkdir -- "$tx/decided" 2>/dev/null || fail unconfirmed "the timer has taken the change back"
	disarm
}

# journal UNIT explains a failure by what the unit said since the change began.
journal() {
	systemctl --no-pager --lines=0 --full status -- "$1" 2>/dev/null 9>&- | grep -E '^ +(Active|Process|Main PID):' | while IFS= read -r line; do
		say text "$line"
	done
	journalctl --no-pager --quiet --output=cat --lines=20 --since="@${began:-0}" --unit="$1" >"$tx/out" 2>&1 9>&-
	explain "$tx/out"
}

# systemd NUMBER UNIT VERB changes a unit; after enable, disable and unmask
# daemon_reload has to follow. The file in touched tells a rollback
# how the unit was before.
systemd() {
	case $3 in
	stop | disable)
		# What is not there needs neither.
		[ "$(systemctl show --property=LoadState --value -- "$2" 2>/dev/null 9>&-)" != not-found ] || return 0
		;;
	esac
	if [ ! -e "$tx/touched/$1" ]; then
		{
			systemctl is-active -- "$2" || :
			systemctl is-enabled -- "$2" || :
		} >"$tx/touched/.new" 2>/dev/null 9>&-
		mv -f -- "$tx/touched/.new" "$tx/touched/$1"
	fi
	say step "$3 $2"
	swapping=yes
	began=$(date +%s)
	# A unit that failed too often is not started again without this.
	[ "$3" != restart ] || systemctl reset-failed -- "$2" 2>/dev/null 9>&-
	# What changes with these is read anew once, by daemon_reload.
	case $3 in
	enable | disable | unmask) set -- "$1" "$2" "$3" --no-reload ;;
	esac
	if ! timeout 150 systemctl --quiet ${4:+"$4"} "$3" -- "$2" >"$tx/verb" 2>&1 </dev/null 9>&-; then
		explain "$tx/verb"
		journal "$2"
		fail unit "systemctl $3 $2 failed"
	fi
}

# before UNIT ACTION COMMAND prepares a unit that runs. The change does not depend on it.
before() {
	systemctl --quiet is-active -- "$1" 9>&- || return 0
	say step "before the $2 of $1"
	if ! hook "$2" "$3" >"$tx/hook" 2>&1; then
		say step "going on although $1 could not be prepared: $(tail -n 1 -- "$tx/hook")"
	fi
}

# after UNIT ACTION COMMAND
after() {
	say step "after the $2 of $1"
	if ! hook "$2" "$3" >"$tx/hook" 2>&1; then
		explain "$tx/hook"
		journal "$1"
		fail unhealthy "$1 runs, but does not work again: $3"
	fi
}

# daemon_reload
daemon_reload() {
	swapping=yes
	if ! systemctl daemon-reload >"$tx/out" 2>&1 9>&-; then
		explain "$tx/out"
		fail unit "systemctl daemon-reload failed"
	fi
}

# settle UNITS... sees whether units that have no health check stay up.
settle() {
	sleep 0.2
	for unit; do
		if ! systemctl --quiet is-active -- "$unit" 9>&-; then
			journal "$unit"
			fail unhealthy "$unit does not stay up"
		fi
	done
}

# uptime is in whole seconds; the clock may jump, this does not.
uptime() {
	read -r seconds _ </proc/uptime
	printf '%s' "${seconds%.*}"
}

# reloaded UNIT waits until a reload has taken effect. A daemon goes on with its
# previous configuration for a moment after it was told, and would be found
# healthy with that one. One that tells systemd about its reload is in the state
# "reloading" until it is over.
reloaded() {
	sleep 0.4
	tries=100
	while [ "$(systemctl is-active -- "$1" 9>&-)" = reloading ] && [ "$tries" -gt 0 ]; do
		tries=$((tries - 1))
		sleep 0.1
	done
	sleep 0.3
}

# health UNIT SECONDS COMMAND tries a command until it succeeds.
health() {
	say step "waiting for $1 to be healthy"
	until=$(($(uptime) + $2))
	while ! timeout 5 sh -c "$3" >"$tx/health" 2>&1 </dev/null 9>&-; do
		if [ "$(uptime)" -ge "$until" ] || systemctl --quiet is-failed -- "$1" 9>&-; then
			explain "$tx/health"
			journal "$1"
			fail unhealthy "$1 is not healthy: $3"
		fi
		sleep 0.2
	done
}

# loaded UNIT RESTART RELOAD writes down what a unit has loaded.
loaded() {
	printf '%s %s\n' "$2" "$3" >"$state/loaded/.new" && mv -f -- "$state/loaded/.new" "$state/loaded/$1"
}

# forget UNIT
forget() {
	rm -f -- "$state/loaded/$1"
}

# finish ends a change that succeeded.
finish() {
	generation "$id is done"
	leave
	say "done"
}
