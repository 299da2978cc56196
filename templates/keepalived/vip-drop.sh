#!/bin/sh
# Managed by infractl: changes made here are put back.
# Takes the virtual IPs off this host's interfaces. keepalived does so itself when
# it ends; this is for when it was killed, since by the time that it runs again
# another load balancer has them. usage: vip-drop FOLDER, with VIP_ADDRESSES as in
# /etc/infractl/vip.env
set -eu

if [ -z "${VIP_ADDRESSES-}" ]; then
	# shellcheck source=/dev/null
	. /etc/infractl/vip.env
fi

for pair in $VIP_ADDRESSES; do
	ip -oneline address show to "${pair#*=}" | while read -r _ device _ prefix _; do
		ip address delete "$prefix" dev "$device"
		echo "took $prefix off $device"
	done
done
rm -f "$1"/vip-state "$1"/vip-state.*
