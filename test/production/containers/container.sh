#!/bin/bash
# Becomes a service in a container of sorts: a file system of its own over this machine's programs, process ids, shared
# memory and mounts of its own, and an ordinary user. Run in the service's network namespace:
#
#   container.sh init|plain PROCESS ROOT SHM_BYTES HOSTS UID GID FOLDER MOUNT... -- COMMAND...
#
# init: with a first process that passes signals on; PROCESS: one whose process ids it shares, or 0; ROOT: an empty folder;
# HOSTS: file with the names of the services; MOUNT: SOURCE=TARGET.
set -euo pipefail
if [ -z "${IN_CONTAINER:-}" ]; then
  export IN_CONTAINER=yes
  if [ "$2" = 0 ]; then
    exec unshare --mount --uts --pid --fork --ipc --kill-child --propagation private -- "$0" "$@"
  fi
  exec nsenter --target "$2" --pid -- unshare --mount --uts --ipc --propagation private -- "$0" "$@"
fi
unset IN_CONTAINER
kind=$1 root=$3 shm=$4 hosts=$5 uid=$6 gid=$7 folder=$8
shift 8

mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir -p "$root"/{usr,etc,proc,dev,sys,run,home/rankflow,root}
mkdir -p -m 1777 "$root"/{tmp,var,var/tmp}
mount --rbind /usr "$root/usr"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o "size=$shm,mode=1777" tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
cp -a /etc/. "$root/etc"
cat "$hosts" >"$root/etc/hosts"
# A name that is in no file is not found at once, as with the name service of a network of containers.
rm -f "$root/etc/resolv.conf"
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
hostname "$(basename "$root")"
getent passwd "$uid" >/dev/null || echo "rankflow:x:$uid:$gid::/home/rankflow:/bin/sh" >>"$root/etc/passwd"
chown "$uid:$gid" "$root/home/rankflow"
for name in bin lib lib64 sbin; do
  if [ -e "/$name" ]; then ln -s "usr/$name" "$root/$name"; fi
done
while [ "$1" != -- ]; do
  source=${1%%=*} target=$root${1#*=}
  shift
  mkdir -p "$(dirname "$target")"
  if [ -d "$source" ]; then mkdir -p "$target"; else : >>"$target"; fi
  mount --bind "$source" "$target"
done
shift

if [ "$kind" = plain ]; then
  exec chroot --userspec="$uid:$gid" --groups= "$root" /bin/bash -c 'cd "$0" && exec "$@"' "$folder" "$@"
fi
# As `init: true`: the first process passes signals on and collects what others leave behind.
exec chroot --userspec="$uid:$gid" --groups= "$root" /bin/bash -c '
  cd "$0" || exit 126
  "$@" &
  child=$!
  trap "kill -TERM $child 2>/dev/null" TERM INT
  status=0
  while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
  exit "$status"' "$folder" "$@"
