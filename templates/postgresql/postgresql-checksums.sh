#!/bin/sh
# Managed by infractl: changes made here are put back.
# Turns on data checksums before the first start of a cluster that Debian's package
# has made without them: a disk that returns wrong data should be noticed. One that
# holds data already is left alone, since this would read and write all of it.
# usage: postgresql-checksums VERSION, as root, while the server is down
set -eu

data=/var/lib/postgresql/$1/main

as_postgres() {
	setpriv --reuid=postgres --regid=postgres --init-groups \
		env -i PATH="/usr/lib/postgresql/$version/bin:/usr/sbin:/usr/bin" LC_ALL=C.UTF-8 "$@" </dev/null
}

version=$1
[ "$(as_postgres pg_controldata "$data" | sed -n 's/^Data page checksum version: *//p')" = 0 ] || exit 0
# A new cluster has about 40 MiB.
[ "$(du -sm "$data" | cut -f 1)" -lt 100 ] || exit 0
as_postgres pg_checksums --enable --pgdata="$data"
