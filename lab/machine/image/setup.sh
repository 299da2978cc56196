#!/bin/sh
# Turns a fresh root tree into what a cloud provider's image is: nothing in it
# belongs to one machine, and cloud-init does the rest at first boot. Called
# by mmdebstrap with the tree as the only argument.
set -eu
root=$1

# Every machine gets keys and an identity of its own. An empty machine-id,
# unlike a missing one, does not make systemd ask first-boot questions.
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"

# The image's own cloud-init settings come in a file beside this script.
install -m 0644 "$LAB_IMAGE_FILES/cloud.cfg" "$root/etc/cloud/cloud.cfg.d/90_lab.cfg"
mkdir -p "$root/var/lib/cloud/seed/nocloud"

# Journals on disk, so that they can be read when the machine is off.
mkdir -p "$root/var/log/journal"
printf 'LANG=C.UTF-8\n' >"$root/etc/default/locale"

# These settings were only for making the image.
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
sed -i '/Install-Recommends/d' "$root/etc/apt/apt.conf.d/99mmdebstrap"

# Nobody reads descriptions of packages on a server; they are as large as the
# lists themselves.
printf 'Acquire::Languages "none";\n' >"$root/etc/apt/apt.conf.d/10languages"

# What apt-get update leaves on a computer: the lists in the form that apt works
# with, which takes seconds to make.
unset APT_CONFIG
chroot "$root" apt-get clean
chroot "$root" apt-cache gencaches

# Where there are daemons already, they wait until somebody wants them.
for unit in nginx haproxy keepalived postgresql; do
	[ ! -e "$root/lib/systemd/system/$unit.service" ] || chroot "$root" systemctl --quiet disable "$unit" 2>/dev/null
done

# A machine without a console needs no login prompts on it.
for unit in console-getty.service getty@tty1.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# All caches are made. Without these marks, which have the time of /usr,
# systemd makes them at every first boot.
touch --reference="$root/usr" "$root/etc/.updated" "$root/var/.updated"
