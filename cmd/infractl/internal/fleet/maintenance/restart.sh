# shellcheck shell=sh

# restart TIER restarts this host's serving daemons. Only a database host has no
# way of its own to do that without an interruption.
restart() {
	case $1 in
	db) systemctl restart 'postgresql@*.service' ;;
	*) /usr/local/lib/infractl/restart ;;
	esac </dev/null >&2
}
