# shellcheck shell=sh

# booted waits until cloud-init has done its work, which is what
# "cloud-init status --wait" waits for; that command itself takes a second of
# Python. /run/cloud-init/enabled exists from before the network on.
booted() {
	if [ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/disabled ]; then
		printf '@waiting\n'
		while [ ! -e /run/cloud-init/result.json ]; do
			sleep 0.1
		done
		cat /run/cloud-init/result.json
	fi
}
