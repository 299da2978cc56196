#!/bin/sh
# Managed by infractl: changes made here are put back.
# Tells whether PostgreSQL can take, or has taken, its configuration:
#   validate VERSION FOLDER   before a change, as root; FOLDER holds server.crt and server.key
#   health ADDRESS PORT       after a change, as root
#   role NAME PORT            whether the application's role and database exist
set -eu

as_postgres() {
	# psql must not ask for anything, and not read the caller's settings.
	setpriv --reuid=postgres --regid=postgres --init-groups \
		env -i PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 PGCONNECT_TIMEOUT=3 "$@" </dev/null
}

# ask PORT QUERY prints what the local server answers.
ask() {
	as_postgres psql --no-psqlrc --no-align --tuples-only --quiet --no-password \
		--port="$1" --dbname=postgres --command="$2"
}

case ${1-} in
validate)
	version=$2 folder=$3
	# Reads all configuration files and says which line is wrong.
	as_postgres "/usr/lib/postgresql/$version/bin/postgres" -C shared_buffers \
		-D "/var/lib/postgresql/$version/main" \
		-c "config_file=/etc/postgresql/$version/main/postgresql.conf" >/dev/null
	certificate=$(openssl x509 -in "$folder/server.crt" -noout -pubkey) || {
		echo "$folder/server.crt is not a certificate" >&2
		exit 1
	}
	key=$(openssl pkey -in "$folder/server.key" -pubout 2>/dev/null) || {
		echo "$folder/server.key is not a private key" >&2
		exit 1
	}
	if [ "$certificate" != "$key" ]; then
		echo "$folder/server.key does not belong to $folder/server.crt" >&2
		exit 1
	fi
	;;
health)
	address=$2 port=$3
	pg_isready --quiet --host="$address" --port="$port" --timeout=3 || {
		echo "PostgreSQL does not answer on $address port $port" >&2
		exit 1
	}
	# A reload ignores what it does not understand; these views tell.
	errors=$(ask "$port" "
		SELECT format('%s line %s: %s', sourcefile, sourceline, error) FROM pg_file_settings
		 WHERE error IS NOT NULL
		UNION ALL
		SELECT format('pg_hba.conf line %s: %s', line_number, error) FROM pg_hba_file_rules
		 WHERE error IS NOT NULL")
	if [ -n "$errors" ]; then
		echo "$errors" >&2
		exit 1
	fi
	;;
role)
	name=$2 port=$3
	found=$(ask "$port" "
		SELECT count(*) FROM pg_roles r JOIN pg_database d ON d.datdba = r.oid
		 WHERE r.rolname = '$name' AND d.datname = '$name' AND r.rolcanlogin")
	if [ "$found" != 1 ]; then
		echo "the role or the database $name does not exist" >&2
		exit 1
	fi
	;;
*)
	echo "usage: $0 validate VERSION FOLDER | health ADDRESS PORT | role NAME PORT" >&2
	exit 2
	;;
esac
