#!/bin/sh
# setup.sh ROOT makes this mount namespace look like a machine of its own, with
# all that can be written below ROOT, which is empty. The programs that talk to
# systemd are the stand-ins beside this file.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
root=$1
mount --make-rprivate /
mount -t tmpfs -o mode=0755 machine "$root"
mkdir -p -- "$root/etc" "$root/lib" "$root/run" "$root/sbin" "$root/srv"
# Not with their owners, whom another user than root cannot give them.
cp -P -- /etc/passwd /etc/group /etc/os-release "$root/etc/"
mkdir -p -- "$root/etc/systemd/system/multi-user.target.wants" "$root/run/units"
for name in systemctl systemd-run journalctl sleep; do
	cp -- "$here/$name" "$root/sbin/$name"
	chmod 0755 -- "$root/sbin/$name"
done
mount --bind -- "$root/etc" /etc
mount --bind -- "$root/lib" /var/lib
mount --bind -- "$root/run" /run
mount --bind -- "$root/srv" /srv
mount --bind -- "$root/sbin" /usr/local/sbin
printf 'ready\n'
exec sleep infinity
