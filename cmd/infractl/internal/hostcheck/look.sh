# shellcheck shell=sh
# What hosts check wants to know of a server beyond what any server is asked. Each
# answer is a line of its own: a word that says what it is, and the rest. Nothing here
# changes the server; what is mounted is gone with the namespace that it is mounted in.

LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

# owner prints whose the server is, if infractl has set it up.
owner() {
	[ ! -r /etc/infractl/host ] || sed -n '1s/^/owner /p' /etc/infractl/host
}

# clocks prints the packages of time daemons, which cannot be installed beside
# systemd-timesyncd.
clocks() {
	for package in chrony ntpsec ntp openntpd; do
		[ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" != installed ] ||
			printf 'clock %s\n' "$package"
	done
}

# kernel prints what is missing for checking new configurations (an overlay in a mount
# namespace of its own) and for the firewall.
kernel() {
	dir=/mnt
	[ -d "$dir" ] || dir=/run
	# shellcheck disable=SC2016 # it is the inner shell's $1
	said=$(unshare --mount -- sh -c '
		mount -t tmpfs infractl "$1" && mkdir "$1/upper" "$1/work" &&
		mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" infractl /etc
	' sh "$dir" 2>&1) || printf 'namespace %s\n' "$(printf '%s\n' "$said" | head -n 1)"
	if command -v nft >/dev/null; then
		said=$(nft list tables 2>&1 >/dev/null) || printf 'nftables %s\n' "$(printf '%s\n' "$said" | head -n 1)"
	elif [ -d "/lib/modules/$(uname -r)" ] && ! modprobe --dry-run --quiet nf_tables 2>/dev/null &&
		! grep -qm 1 nf_tables_ /proc/kallsyms; then
		# A container does not have its kernel's modules, and cannot tell.
		printf 'nftables there is no module nf_tables\n'
	fi
}

# listeners prints who listens on TCP, with the unit that each belongs to.
listeners() {
	{ ss -H -lntp --cgroup 2>/dev/null || ss -H -lntp 2>/dev/null; } | sed 's/^/listen /'
}

# clusters prints the versions and names of PostgreSQL's data directories.
clusters() {
	for file in /var/lib/postgresql/*/*/PG_VERSION; do
		[ -e "$file" ] || continue
		dir=${file%/PG_VERSION}
		printf 'cluster %s\n' "${dir#/var/lib/postgresql/}"
	done
}

# logins prints what keeps sshd from taking infractl's settings, since it takes the
# first value that it meets.
logins() {
	grep -Eqi '^[[:space:]]*include[[:space:]]+"?(/etc/ssh/)?sshd_config\.d/\*\.conf' /etc/ssh/sshd_config 2>/dev/null ||
		printf 'noinclude /etc/ssh/sshd_config\n'
	for file in /etc/ssh/sshd_config.d/*.conf; do
		[ ! -e "$file" ] || printf '%s\n' "$file"
	done | { cat && printf '/etc/ssh/sshd_config.d/10-infractl.conf\n'; } | sort | while read -r file; do
		[ "$file" != /etc/ssh/sshd_config.d/10-infractl.conf ] || break
		printf 'sshd %s\n' "$file"
	done
}

# neighbours ADDRESS... prints who has addresses that a load balancer is to have. What
# makes the kernel ask is a datagram to the port that throws everything away. One is not
# enough: if somebody asked for the address just now, in vain, the kernel does not ask
# again before it has given that up, up to a second later.
neighbours() {
	for _ in 1 2 3 4 5 6 7; do
		for address; do
			# shellcheck disable=SC2016 # it is bash's $0
			timeout 1 bash -c 'echo >"/dev/udp/$0/9"' "$address" 2>/dev/null
		done
		sleep 0.2
	done
	for address; do
		ip neigh show to "$address" 2>/dev/null | sed -n "s/.* lladdr \([0-9a-f:]*\) .*/$address \1/p"
	done
	printf 'end\n'
}

survey() {
	owner
	clocks
	kernel
	listeners
	clusters
	logins
	printf 'end\n'
}

# packaged PATH... prints those of the files that are as their packages brought them.
packaged() {
	dpkg-query --show --showformat '${Conffiles}\n' 2>/dev/null | while read -r path sum _; do
		for wanted; do
			[ "$path" != "$wanted" ] || printf '%s  %s\n' "$sum" "$path"
		done
	done | md5sum --check 2>/dev/null | sed -n 's/: OK$//p'
	printf 'end\n'
}
