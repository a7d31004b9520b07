#!/bin/sh
# Process 1 of new mount, process, network, name, IPC and cgroup namespaces: makes a small machine and becomes its systemd.
#
#   systemd_boot.sh DIRECTORY PROGRAM
#
# DIRECTORY holds `root` (empty), `etc` and `var` of the new machine; PROGRAM becomes its /usr/local/bin/posthaste.
# /usr is this machine's, read-only. Nothing of systemd that would set up a kernel is started: /proc/sys is read-only, and of
# the units that every boot starts there is only the journal. Nothing here reaches the machine around it.
set -eu

directory=$1
program=$2

mount --make-rprivate /
mount -t tmpfs -o mode=755 root "$directory/root"
cd "$directory/root"
mkdir usr etc var proc sys dev run tmp root home old
for link in bin lib lib64 sbin; do
  ln -s "usr/$link" "$link"
done

mount --bind /usr usr
mount -o remount,bind,ro usr
mount -t tmpfs -o mode=755 local usr/local
mkdir usr/local/bin
touch usr/local/bin/posthaste
mount --bind "$program" usr/local/bin/posthaste

mount -t tmpfs -o mode=755 wants usr/lib/systemd/system/sysinit.target.wants
ln -s ../systemd-journald.service usr/lib/systemd/system/sysinit.target.wants/
mount -t tmpfs -o mode=755 wants usr/lib/systemd/system/sockets.target.wants

mount --bind "$directory/etc" etc
mount --bind "$directory/var" var
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sys sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mkdir -m 1777 dev/shm
mkdir dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

ip link set lo up
pivot_root . old
umount --lazy /old

exec env -i container=posthaste-test PATH=/usr/sbin:/usr/bin /lib/systemd/systemd \
  --unit=posthaste-test.target --show-status=no
