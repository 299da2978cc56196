#!/bin/sh
# Runs one machine from power-on to power-off, in mounts that nobody else sees
# and that go with it. Everything comes in the environment:
#   LAB_NAME, LAB_HOSTNAME  the machine's name for the container manager, and its own
#   LAB_LOWER, LAB_DIR      the image's tree, and the machine's directory
#   LAB_NETNS               its network namespace
#   LAB_KEEPER              control group directories for this script
#   LAB_MACHINE             the one for the machine (version 2)
# How the machine went is left in $LAB_DIR/exit: 133 asks for a reboot.
set -u
for group in $LAB_KEEPER; do
	echo $$ >"$group/cgroup.procs" || exit 71
done

# The disk need not survive a crash of this computer, so nothing waits for its
# real disk ("volatile"). The kernel marks such a disk as possibly incomplete,
# and refuses it after that until the mark is gone.
(cd "$LAB_DIR/work" && rm -rf work/incompat) || exit 72
mount -t overlay "$LAB_NAME" \
	-o "lowerdir=$LAB_LOWER,upperdir=$LAB_DIR/upper,workdir=$LAB_DIR/work,volatile" "$LAB_DIR/root" || exit 72

# /proc/sys/net belongs to the machine's network namespace; the rest of
# /proc/sys is this computer's and stays read-only.
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
# The machine's manager needs a control group without other processes beside it.
sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$LAB_MACHINE" \
	systemd-nspawn --quiet --boot --register=no --keep-unit --link-journal=no \
	--directory="$LAB_DIR/root" --machine="$LAB_NAME" --hostname="$LAB_HOSTNAME" \
	--network-namespace-path="$LAB_NETNS" --resolv-conf=off --timezone=off --console=read-only \
	--capability=CAP_NET_ADMIN,CAP_NET_RAW
echo $? >"$LAB_DIR/exit.new"
mv "$LAB_DIR/exit.new" "$LAB_DIR/exit"
