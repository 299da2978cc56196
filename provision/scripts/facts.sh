# shellcheck shell=sh
# shellcheck disable=SC2154 # state and run are set in common.sh
# Says what kind of machine this is, in sections as inspect.sh does. Whatever is
# not there is left out: this runs before anything was installed.

# section NAME
section() {
	printf '\n%s %s\n' "${mark:?}" "$1"
}

# clock comes first: the other side reckons with the time that it took to get here.
clock() {
	section clock
	date +%s.%N
}

# system prints what it runs and on what.
system() {
	section release
	cat /etc/os-release 2>/dev/null
	section system
	printf 'kernel %s\n' "$(uname -r)"
	printf 'architecture %s\n' "$(uname -m)"
	printf 'cores %s\n' "$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
	if [ -d /run/systemd/system ]; then
		printf 'systemd yes\n'
	fi
	grep -s '^MemTotal:' /proc/meminfo
	read -r uptime _ </proc/uptime && printf 'uptime %s\n' "$uptime"
}

# disks prints sizes in blocks of 512 bytes, whatever the disk's own are.
disks() {
	section disks
	grep -sH '' /sys/block/*/size /sys/block/*/queue/rotational
	section free
	for dir in / /var; do
		stat -f --printf "%a %S $dir\n" "$dir" 2>/dev/null
	done
}

# network prints interfaces, addresses, routes, and who listens.
network() {
	section interfaces
	grep -sH '' /sys/class/net/*/address /sys/class/net/*/mtu /sys/class/net/*/operstate
	section addresses
	ip -o address show 2>/dev/null
	section routes
	ip -o -4 route show default 2>/dev/null
	ip -o -6 route show default 2>/dev/null
	section listening
	ss -H -lntup 2>/dev/null
}

# packages prints what dpkg has left undone and who holds its locks.
packages() {
	section audit
	command -v dpkg >/dev/null || return 0
	dpkg --audit 2>&1
	# dpkg notes here what it is doing, and removes it when that is done.
	for file in /var/lib/dpkg/updates/[0-9]*; do
		[ ! -e "$file" ] || printf 'dpkg was interrupted\n'
	done
	section locks
	for lock in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock; do
		inode=$(stat -c %i -- "$lock" 2>/dev/null) || continue
		# Number, kind, ADVISORY, mode, process, device:inode, range.
		while read -r _ _ _ _ pid where _; do
			case $where in
			*":$inode") ;;
			*) continue ;;
			esac
			name=
			read -r name 2>/dev/null <"/proc/$pid/comm"
			printf '%s %s %s\n' "$lock" "$pid" "$name"
		done </proc/locks
	done
}

# finish proves that the output is complete.
finish() {
	section end
}
