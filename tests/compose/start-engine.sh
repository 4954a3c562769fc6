#!/bin/bash
# Becomes a Docker engine. Runs in a mount, network and process namespace of its own, so that
# nothing of it remains: no mount, bridge, rule of iptables or process.
#
# usage: start-engine.sh ROOT DATA FOLDER...
#   ROOT    a Debian with docker.io
#   DATA    for images, containers and the socket; kept
#   FOLDER  what containers may mount, at the same path
set -euo pipefail
root=$1
data=$2
shift 2

# A mount point of its own: pivot_root wants one, and importing an image needs pivot_root.
mount --rbind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
for folder in "$data" "$@"; do
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
done
# slirp4netns answers there, from the machine's own resolver.
printf 'nameserver 10.0.2.3\n' > "$root/etc/resolv.conf"
cp /etc/hosts "$root/etc/hosts"
mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
exec chroot . /bin/sh -euc '
umount -l /.old
exec /usr/bin/docker-init -- /usr/sbin/dockerd \
    --data-root "$1/images" --host "unix://$1/docker.sock" --ip6tables=false
' sh "$data"
