# shellcheck shell=sh
# Upgrades of this host's packages. What is said is one line each:
#
#	@step TEXT              what happens now
#	@package NAME OLD NEW   what would be installed; OLD is - if it is new here
#	@kept NAME              a package that cannot be upgraded without removing others
#	@unfinished             an upgrade was cut off
#	@reboot REASON          why this host needs a reboot
#	@stale UNIT             a service that runs what is no longer on the disk

LC_ALL=C
DEBIAN_FRONTEND=noninteractive
APT_LISTCHANGES_FRONTEND=none
NEEDRESTART_SUSPEND=1
export LC_ALL DEBIAN_FRONTEND APT_LISTCHANGES_FRONTEND NEEDRESTART_SUSPEND
umask 022

run=/run/infractl
policy=/usr/sbin/policy-rc.d
# How long another apt or dpkg is waited for, in seconds.
patience=300

# PIPE and HUP come when the connection is lost. What has begun is finished then
# without the other side; they are caught, not ignored, so that programs started
# from here do not inherit that.
trap : PIPE HUP

say() {
	printf '@%s\n' "$*" 2>/dev/null
}

# fail TEXT ends everything, with what apt and dpkg complained about.
fail() {
	printf '%s\n' "$1" >&2
	complaints=$(grep -E '^(E|Err|W|dpkg|Errors?|subprocess|[a-z-]+: (error|fatal))[: ]' "$out")
	printf '%s\n' "${complaints:-$(cat "$out")}" | tail -n 20 >&2
	exit 1
}

# locked says whether somebody else held one of apt's or dpkg's locks.
locked() {
	grep -qi 'could not get lock\|unable to lock\|lock.*locked by another process\|frontend lock' "$out"
}

# patiently COMMAND... tries again for as long as somebody else holds a lock. apt
# itself waits for one of its locks only.
patiently() {
	tries=$((patience / 5))
	while ! "$@" >"$out" 2>&1 </dev/null 9>&-; do
		if ! locked || [ "$tries" -le 0 ]; then
			return 1
		fi
		[ "$tries" -ne $((patience / 5)) ] || say step "waiting for another package manager"
		tries=$((tries - 1))
		sleep 5
	done
}

# apt SECONDS ARGUMENTS... runs apt-get, for so long at most; 0 is without end.
# Files that somebody changed stay as they are. Nothing is ever removed.
apt() {
	limit=$1
	shift
	# shellcheck disable=SC2086 # it is a command with its options, or nothing
	patiently $gently timeout "$limit" apt-get -q -y -o DPkg::Lock::Timeout="$patience" -o Acquire::Retries=2 \
		-o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o APT::Update::Error-Mode=any -o Dpkg::Use-Pty=0 \
		-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# planned reads what apt-get would do, and says it.
planned() {
	sed -n \
		-e 's/^Inst \([^ ]*\) \[\([^]]*\)\] (\([^ ]*\) .*/@package \1 \2 \3/p' \
		-e 's/^Inst \([^ ]*\) (\([^ ]*\) .*/@package \1 - \2/p' \
		-e '/^The following packages have been kept back:/,/^[^ ]/s/^  *//p' |
		while IFS= read -r line; do
			case $line in
			@*) printf '%s\n' "$line" ;;
			*)
				for name in $line; do
					say kept "$name"
				done
				;;
			esac
		done
}

# unfinished says whether packages are half installed: half-installed, unpacked,
# half-configured, or with triggers to run.
unfinished() {
	dpkg-query --show --showformat='${db:Status-Abbrev}\n' 2>/dev/null | grep -q '^.[HUFWt]'
}

# newer_kernel RELEASE BUILD reads lines of "STATUS PACKAGE VERSION", and says
# which of these kernels a host should run that runs RELEASE (uname -r), built as
# BUILD (uname -v); nothing if that is the one. A kernel of another flavour, such
# as cloud-amd64 beside amd64, does not count.
newer_kernel() {
	mine=$(flavour "$1")
	newest=${1%-"$mine"} found=
	while read -r status package version; do
		release=${package#linux-image-}
		case $status:$release in
		?i*:[0-9]*) ;;
		*) continue ;;
		esac
		[ "$(flavour "$release")" = "$mine" ] || continue
		if [ "$release" = "$1" ]; then
			# The same name can have been built anew.
			case $2 in
			*" Debian $version"*) ;;
			*" Debian "*) [ -n "$found" ] || found="kernel $release was upgraded to $version" ;;
			esac
		elif dpkg --compare-versions "${release%-"$mine"}" gt "$newest"; then
			newest=${release%-"$mine"}
			found="kernel $release is installed, $1 runs"
		fi
	done
	[ -z "$found" ] || printf '%s\n' "$found"
}

# flavour RELEASE is the last part of a kernel's release: cloud-amd64 of
# 6.1.0-18-cloud-amd64 or of 6.12.43+deb13-cloud-amd64.
flavour() {
	printf '%s\n' "$1" | sed 's/^[^-]*-\([0-9][^-]*-\)\{0,1\}//'
}

# reboot_reason says why this host needs a reboot; nothing if it does not.
reboot_reason() {
	reason=$(dpkg-query --show --showformat='${db:Status-Abbrev} ${Package} ${Version}\n' 'linux-image-[0-9]*' 2>/dev/null |
		newer_kernel "$(uname -r)" "$(uname -v)")
	if [ -z "$reason" ] && [ -e /run/reboot-required ]; then
		reason='packages ask for it'
		if [ -s /run/reboot-required.pkgs ]; then
			reason="$(sort -u /run/reboot-required.pkgs | tr '\n' ' ')asks for it"
		fi
	fi
	[ -z "$reason" ] || printf '%s\n' "$reason"
}

# stale prints the services with a process that runs code which has been replaced
# on the disk. Without the message bus a host does not work, so that one waits
# for a reboot; sessions of users end by themselves.
stale() {
	for maps in /proc/[0-9]*/maps; do
		grep -qsE '^[^ ]+ ..x. .* /(usr|lib|srv)[^ ]* \(deleted\)$' "$maps" || continue
		if [ "$maps" = /proc/1/maps ]; then
			echo init
			continue
		fi
		# One line for each hierarchy; systemd's is the unified or the named one.
		sed -n 's/^[0-9]*:\(name=systemd\)\{0,1\}:.*\/\([^\/]*\.service\)$/\2/p' "${maps%/maps}/cgroup" 2>/dev/null
	done | grep -v '^\(dbus[-.]\|user@\|infractl-revert-\)' | sort -u
}

# pending says what is to do besides upgrading packages.
pending() {
	reason=$(reboot_reason)
	[ -z "$reason" ] || say reboot "$reason"
	stale | while IFS= read -r unit; do
		say stale "$unit"
	done
}

# hold keeps others from changing this host at the same time.
hold() {
	(umask 077 && mkdir -p -- "$run") || exit 1
	exec 9>>"$run/lock"
	if ! flock -w "$patience" 9; then
		read -r other <"$run/holder" || other="another run"
		fail "this host is being changed by $other"
	fi
	printf 'an upgrade since %s\n' "$(date -u '+%H:%M:%S UTC')" >"$run/holder"
	# With the lock held, this is from a run that died: it would keep the
	# packages from restarting their daemons.
	if grep -qs '^# infractl:' "$policy"; then
		rm -f -- "$policy"
		[ ! -e "$policy.infractl-saved" ] || mv -f -- "$policy.infractl-saved" "$policy"
	fi
}

# finish_old configures what an upgrade that was cut off has unpacked.
finish_old() {
	unfinished || return 0
	say step "finishing an upgrade that was cut off"
	patiently dpkg --force-confdef --force-confold --configure -a || fail "dpkg cannot configure what was left half installed"
	unfinished || return 0
	apt 0 --no-remove --fix-broken install || fail "what was left half installed cannot be repaired without removing packages"
}

# upgrade WHAT does one of four things.
#
#	list      reads the package lists anew, and says what there is to do
#	fetch     downloads what would be installed
#	install   does it, and says what is still to do then
#	renew     restarts the services that run what is no longer on the disk
upgrade() {
	out=$(mktemp) || exit 1
	trap 'rm -f -- "$out"' EXIT
	# A host that serves has better things to do than reading package lists; one
	# that is being upgraded has not.
	gently='nice -n 19 ionice -c 3'
	[ "$1" != install ] || gently=
	case $1 in
	list)
		apt 300 update || fail "the package lists could not be read"
		# A simulation takes no lock, and looks past what is half installed.
		apt 120 --simulate --with-new-pkgs upgrade || fail "apt-get cannot say what it would upgrade"
		planned <"$out"
		! unfinished || say unfinished
		pending
		;;
	fetch)
		apt 1200 --download-only --with-new-pkgs upgrade || fail "packages could not be downloaded"
		;;
	install)
		hold
		finish_old
		apt 0 --with-new-pkgs upgrade || fail "packages could not be upgraded"
		: >"$run/holder"
		pending
		;;
	renew)
		failed=
		for unit in $(stale); do
			say step "restarting $unit"
			if [ "$unit" = init ]; then
				systemctl daemon-reexec
			else
				systemctl try-restart -- "$unit"
			fi >"$out" 2>&1 </dev/null || failed="$failed $unit"
		done
		[ -z "$failed" ] || fail "could not be restarted:$failed"
		;;
	*)
		echo "upgrade: there is no $1" >&2
		exit 2
		;;
	esac
}
