#!/bin/sh
# Managed by infractl: changes made here are put back.
# Puts the floating IPs on the loopback interface, or checks that they are there.
# usage: vip-address add|check, with VIP_ADDRESSES as in /etc/infractl/vip.env
set -eu

if [ -z "${VIP_ADDRESSES-}" ]; then
	# shellcheck source=/dev/null
	. /etc/infractl/vip.env
fi

wanted=' '
for pair in $VIP_ADDRESSES; do
	address=${pair#*=}
	wanted="$wanted$address "
	case $address in
	*:*) prefix=$address/128 ;;
	*) prefix=$address/32 ;;
	esac
	case ${1-} in
	# The label tells which addresses are ours; IPv6 addresses have none.
	add) case $address in
		*:*) ip address replace "$prefix" dev lo nodad ;;
		*) ip address replace "$prefix" dev lo label lo:infractl ;;
		esac ;;
	check) ip -oneline address show dev lo to "$prefix" | grep -q . ;;
	*)
		echo "usage: $0 add|check" >&2
		exit 2
		;;
	esac
done

# A floating IP that is no longer the environment's.
if [ "$1" = add ]; then
	ip -4 -oneline address show dev lo label lo:infractl | while read -r _ _ _ prefix _; do
		case $wanted in
		*" ${prefix%/*} "*) ;;
		*) ip address delete "$prefix" dev lo ;;
		esac
	done
fi
