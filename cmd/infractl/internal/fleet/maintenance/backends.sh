# shellcheck shell=sh

# backends prints what HAProxy on this load balancer knows of its servers, as
# CSV: of all proxies (-1) those rows that are servers (type 4).
backends() {
	echo 'show stat -1 4 -1' | timeout 10 socat -t 5 - UNIX-CONNECT:/run/haproxy/admin.sock
}
