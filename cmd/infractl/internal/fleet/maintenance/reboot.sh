# shellcheck shell=sh

# boot_id says which boot of this host this is.
boot_id() {
	cat /proc/sys/kernel/random/boot_id
}

# reboot_host lets this host boot anew, and returns before it goes down.
reboot_host() {
	systemctl --no-block reboot >/dev/null
}
