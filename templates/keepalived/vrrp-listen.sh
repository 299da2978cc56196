#!/bin/sh
# Managed by infractl: changes made here are put back.
# Listens whether somebody else on the wire speaks VRRP with one of our router
# IDs: two groups with one ID would take each other for members. It prints a line
# for each stranger and fails if there is one; status 2 means that it could not
# listen.
# usage: vrrp-listen SECONDS ROUTER_ID[,ROUTER_ID…] [ADDRESS…]
# The ADDRESSes are those of the load balancers that may use the IDs.
#
# VRRP (RFC 5798) is IP protocol 112 to 224.0.0.18 or ff02::12, and the second
# byte is the router ID. A table of its own sees the packets before any firewall.
set -eu

if [ $# -lt 2 ]; then
	echo "usage: $0 SECONDS ROUTER_ID[,ROUTER_ID...] [ADDRESS...]" >&2
	exit 2
fi
seconds=$1 routers=$(echo "$2" | tr , ' ')
shift 2

joined=
leave() {
	nft delete table inet infractl_listen 2>/dev/null || :
	for pair in $joined; do
		ip maddress delete "${pair#*=}" dev "${pair%%=*}" 2>/dev/null || :
	done
}
trap leave EXIT
trap 'exit 2' HUP INT TERM

# friends FAMILY prints the addresses that may: those given, and this host's.
friends() {
	{
		for address in "$@"; do echo "$address"; done
		ip -oneline address show | awk '{ sub("/.*", "", $4); print $4 }'
	} | sort -u
}

rules() {
	echo 'table inet infractl_listen'
	echo 'delete table inet infractl_listen'
	echo 'table inet infractl_listen {'
	echo '	set friends4 { type ipv4_addr; }'
	echo '	set friends6 { type ipv6_addr; }'
	for router in $routers; do
		echo "	set heard4_$router { type ipv4_addr; size 1024; flags dynamic; }"
		echo "	set heard6_$router { type ipv6_addr; size 1024; flags dynamic; }"
	done
	echo '	chain listen {'
	echo '		type filter hook prerouting priority -400; policy accept;'
	for router in $routers; do
		echo "		meta l4proto 112 @th,8,8 $router ip saddr != @friends4 add @heard4_$router { ip saddr }"
		echo "		meta l4proto 112 @th,8,8 $router ip6 saddr != @friends6 add @heard6_$router { ip6 saddr }"
	done
	echo '	}'
	echo '}'
	friends "$@" | while read -r address; do
		case $address in
		*:*) echo "add element inet infractl_listen friends6 { $address }" ;;
		*) echo "add element inet infractl_listen friends4 { $address }" ;;
		esac
	done
}

rules "$@" | nft -f - || {
	echo "cannot listen for VRRP: nftables does not work here" >&2
	exit 2
}
# A network card lets only those groups through that somebody has joined.
for device in $(ip -oneline link show up | awk -F ': ' '$2 != "lo" { sub("@.*", "", $2); print $2 }'); do
	for group in 01:00:5e:00:00:12 33:33:00:00:00:12; do
		! ip maddress add "$group" dev "$device" 2>/dev/null || joined="$joined $device=$group"
	done
done

sleep "$seconds"

found=
for router in $routers; do
	for set in "heard4_$router" "heard6_$router"; do
		heard=$(nft list set inet infractl_listen "$set") || exit 2
		# elements = { 192.0.2.7, 192.0.2.8 }
		for address in $(echo "$heard" | tr -d '\n\t' | sed -n 's/.*elements = {\([^}]*\)}.*/\1/p' | tr ',' ' '); do
			echo "$address speaks VRRP with router ID $router; give the virtual IP another one (infractl:vip.routerId)"
			found=yes
		done
	done
done
[ -z "$found" ]
