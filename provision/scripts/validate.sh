# shellcheck shell=sh
# shellcheck disable=SC2154 # tx, state and nl are set elsewhere
# Runs in a mount namespace of its own: makes the host look as it will after the
# change and lets the daemons' checkers judge. The new files are the upper layer
# of overlays whose lower layer is the host, so nothing here reaches the host.

layers=$nl

# layer PATH finds the directory that has to be writable for PATH: /etc as a
# whole, else the deepest directory that exists, so that no more of the host's
# mounts are hidden than needed.
layer() {
	case $1 in
	/etc/*) dir=/etc ;;
	*)
		dir=${1%/*}
		while [ -n "$dir" ] && [ ! -d "$dir" ]; do
			dir=${dir%/*}
		done
		;;
	esac
	[ -n "$dir" ] || return 0
	dir=$(cd -P -- "$dir" && pwd)
	case $layers in
	*"$nl$dir$nl"*) ;;
	*) layers=$layers$dir$nl ;;
	esac
}

# assemble mounts the layers, outer ones first; one inside another needs none.
assemble() {
	mkdir -- "$tx/view" && mount -t tmpfs -o mode=0700 infractl "$tx/view" || exit 1
	number=0
	last=
	list=$(printf '%s' "$layers" | sort)
	while IFS= read -r dir; do
		[ -n "$dir" ] || continue
		if [ -n "$last" ]; then
			case $dir/ in
			"$last"/*) continue ;;
			esac
		fi
		last=$dir
		number=$((number + 1))
		upper=$tx/view/upper$number
		mkdir -- "$upper" "$tx/view/work$number"
		# The merged directory has the attributes of its upper layer.
		chmod --reference="$dir" -- "$upper" && chown --reference="$dir" -- "$upper"
		# The relative path spares the quoting of commas and colons.
		(cd -- "$dir" && mount -t overlay -o "lowerdir=.,upperdir=$upper,workdir=$tx/view/work$number" infractl "$dir") || {
			printf 'an overlay on %s, for checking the new configuration, could not be mounted\n' "$dir"
			exit 1
		}
	done <<END
$list
END
}

# place NUMBER PATH MODE OWNER GROUP
place() {
	(umask 022 && mkdir -p -- "${2%/*}")
	rm -f -- "$2"
	cp -- "$tx/stage/$1" "$2" && chown -- "$4:$5" "$2" && chmod -- "$3" "$2" || exit 1
}

# place_link PATH TARGET
place_link() {
	(umask 022 && mkdir -p -- "${1%/*}")
	rm -f -- "$1"
	ln -s -- "$2" "$1" || exit 1
}

# place_original PATH KEY
place_original() {
	(umask 022 && mkdir -p -- "${1%/*}")
	rm -f -- "$1"
	cp -a -T -- "$state/originals/$2" "$1" || exit 1
}

# without PATH
without() {
	rm -f -- "$1"
}

# check UNIT COMMAND
check() {
	cd / || exit 1
	umask 022
	if ! timeout 60 sh -c "$2" >"$tx/check" 2>&1; then
		printf '%s: %s\n' "$1" "$2"
		tail -n 30 -- "$tx/check"
		exit 1
	fi
}
