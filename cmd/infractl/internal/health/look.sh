# shellcheck shell=sh
# Says how this host is, in sections that begin with a line that nobody's output
# can contain, because $mark is random. Whoever asks waits 2.5 s at most, so
# nothing in here waits for long, and what takes time is done in the second
# between two samples of counters. The functions asks and more, which call those
# below, are written for each tier: see script in observer.go.

# section NAME
section() {
	printf '\n%s %s\n' "${mark:?}" "$1"
}

# now sets $time to the hundredths of a second since boot, without a process.
now() {
	read -r time _ </proc/uptime
	time=${time%.*}${time#*.}
}

# machine prints what there is of it, and how much of that is in use.
machine() {
	section machine
	read -r load _ </proc/loadavg
	read -r uptime _ </proc/uptime
	printf 'load %s\nuptime %s\ncores %s\nkernel %s\n' "$load" "$uptime" "$(nproc)" "$(uname -r)"
	grep -s -e '^MemTotal:' -e '^MemAvailable:' /proc/meminfo
	stat -f --printf 'disk %b %f %a\n' /
	[ ! -e /run/reboot-required ] || echo reboot
	set -- /boot/vmlinuz-*
	[ -e "$1" ] || return 0
	newest=$(printf '%s\n' "$@" | sort -V | tail -n 1)
	echo "newest ${newest#/boot/vmlinuz-}"
}

# units PATTERN... prints those units, and all that have failed.
units() {
	section units
	timeout 1 systemctl list-units --all --plain --no-legend --no-pager -- "$@"
	timeout 1 systemctl list-units --state=failed --plain --no-legend --no-pager
}

# drained prints whether and why the host is drained.
drained() {
	[ -e /run/infractl/drained ] || return 0
	section drained
	head -c 300 /run/infractl/drained
	section left
	head -c 300 /run/infractl/drained.left 2>/dev/null
}

# ready prints whether the host calls itself ready.
ready() {
	[ -x /usr/local/lib/infractl/ready ] || return 0
	status=0
	said=$(timeout 1 /usr/local/lib/infractl/ready 2>&1 </dev/null) || status=$?
	section ready
	printf '%s\n%s' "$status" "$said" | head -c 500
}

# certificates prints the certificates that infractl keeps here, without their keys.
certificates() {
	section certificates
	find /etc/infractl /etc/haproxy -xdev -type f \( -name '*.crt' -o -name '*.pem' \) -size -128k -exec awk '
		FNR == 1 { print "file " FILENAME }
		/^-----BEGIN CERTIFICATE-----/, /^-----END CERTIFICATE-----/' {} + 2>/dev/null
}

# sample SOCKET prints HAProxy's counters and when they were read.
sample() {
	[ -S "$1" ] || return 0
	now
	section sample
	echo "$time"
	echo 'show info;show stat' | timeout 1 socat -t 1 - "UNIX-CONNECT:$1" 2>/dev/null
}

# between SOCKET takes two samples about a second apart, and asks meanwhile.
between() {
	sample "$1"
	began=${time:-0}
	asks
	asked
	more
	[ "$began" = 0 ] || {
		now
		left=$((100 - time + began))
		[ "$left" -le 0 ] || sleep "$((left / 100)).$(printf '%02d' "$((left % 100))")"
		sample "$1"
	}
}

# balancer PORT prints whether the load balancer can serve, and who it believes
# to be. What infractl-vip wrote down counts as long as keepalived runs.
balancer() {
	section balancer
	printf 'alive %s\n' "$(curl --silent --noproxy '*' --max-time 1 --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$1/alive")"
	for file in vip-state lb-health; do
		value=
		[ ! -r "/run/infractl/$file" ] || read -r value <"/run/infractl/$file"
		echo "$file $value"
	done
}

# web prints which nginx it is.
web() {
	section version
	nginx -v 2>&1
}

# application prints which release is served.
application() {
	section release
	for current in /srv/*/current; do
		[ ! -L "$current" ] || readlink -- "$current"
	done
}

# database ADDRESS prints whether PostgreSQL listens there, and its version and
# how many clients it has, if it answers on this host. Asking it as its clients do
# would leave a line in its log every time.
database() {
	section database
	[ -z "$(ss -Hltn src "$1:5432")" ] || echo listens
	setpriv --reuid=postgres --regid=postgres --init-groups env -i PATH="$PATH" LC_ALL=C.UTF-8 PGCONNECT_TIMEOUT=1 \
		timeout 1 psql --no-psqlrc --no-align --tuples-only --quiet --no-password --field-separator=' ' --dbname=postgres --command="
			SELECT 'server', split_part(current_setting('server_version'), ' ', 1),
			       count(*) FILTER (WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
			  FROM pg_stat_activity" </dev/null 2>/dev/null
}

# asked proves that everything was asked for that is worth waiting for: what
# follows is left out where time runs out.
asked() {
	section asked
}

# finish proves that the output is complete.
finish() {
	section end
}
