#!/bin/sh
# Managed by infractl: changes made here are put back.
# keepalived calls this when it has become something else, and this notes what:
# for each virtual IP in FOLDER/vip-state.NAME, and for the whole host in
# FOLDER/vip-state, which says MASTER if the host has one of them.
# usage: vip-state FOLDER INSTANCE NAME STATE PRIORITY, with VIP_ADDRESSES as in
# /etc/infractl/vip.env
#
# keepalived waits for nobody, so that of two of these the later may come first.
# What counts is therefore whether the address is here, and not what was said.
set -eu

if [ -z "${VIP_ADDRESSES-}" ]; then
	# shellcheck source=/dev/null
	. /etc/infractl/vip.env
fi

folder=$1 name=$3 state=$4
exec 9>>"$folder/vip-state-lock"
flock 9

# note FILE TEXT writes so that no reader finds an empty file.
note() {
	printf '%s\n' "$2" >"$1.new"
	mv -f "$1.new" "$1"
}

known='' here=''
for pair in $VIP_ADDRESSES; do
	[ "${pair%%=*}" = "$name" ] || continue
	known=yes
	[ -z "$(ip -oneline address show to "${pair#*=}")" ] || here=yes
done
case $known,$here,$state in
yes,yes,*) state=MASTER ;;
yes,,MASTER) state=BACKUP ;;
esac
if [ "$state" = DELETED ]; then
	rm -f "$folder/vip-state.$name"
else
	note "$folder/vip-state.$name" "$state"
fi

whole=
for file in "$folder"/vip-state.*; do
	[ -e "$file" ] || continue
	read -r state <"$file"
	case $whole,$state in
	MASTER,* | *,MASTER) whole=MASTER ;;
	BACKUP,* | *,BACKUP) whole=BACKUP ;;
	*) whole=$state ;;
	esac
done
if [ -n "$whole" ]; then
	note "$folder/vip-state" "$whole"
else
	rm -f "$folder/vip-state"
fi
