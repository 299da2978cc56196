# shellcheck shell=sh

# booted waits until cloud-init has done its work, which is what
# "cloud-init status --wait" waits for; that command itself takes a second of
# Python. /run/cloud-init/enabled exists from before the network on.
booted() {
	if [ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/disabled ]; then
		printf '@waiting\n'
		# What installs packages meanwhile is not to be disturbed.
		for pause in 0.1 0.1 0.2 0.2 0.3 0.5; do
			[ ! -e /run/cloud-init/result.json ] || break
			sleep "$pause"
		done
		while [ ! -e /run/cloud-init/result.json ]; do
			sleep 0.5
		done
		cat /run/cloud-init/result.json
	fi
}
