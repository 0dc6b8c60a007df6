#!/bin/sh
# What a Linux guest knows of its memory, as one text for `pagetide why --guest FILE`. It only reads.
# Any POSIX shell will do, busybox's too; what root alone may read is marked and missing otherwise.
# Nothing in the text names a program, a file, a user or an address.
LC_ALL=C
export LC_ALL

file() {
    if [ ! -e "$2" ]; then
        echo "@pagetide $1 missing"
    elif text=$(cat "$2" 2>/dev/null); then
        echo "@pagetide $1"
        [ -z "$text" ] || echo "$text"
    else
        echo "@pagetide $1 unreadable"
    fi
}

# "name value" for each of the files that can be read
values() {
    for path in "$@"; do
        value=$(cat "$path" 2>/dev/null) && echo "${path##*/} $value"
    done
}

echo "@pagetide guest 1"
file release /proc/sys/kernel/osrelease
file uptime /proc/uptime

echo "@pagetide parameters"
read -r words </proc/cmdline 2>/dev/null
for word in $words; do
    case $word in
    mem=* | hugepages=* | hugepagesz=* | default_hugepagesz=* | transparent_hugepage=* | page_reporting.*=* | \
        page_poison=* | init_on_free=* | init_on_alloc=* | crashkernel=* | memhp_default_state=*) echo "$word" ;;
    esac
done

echo "@pagetide pages"
page_kib=4
while read -r name value _; do
    if [ "$name" = KernelPageSize: ]; then
        echo "page_kib $value"
        page_kib=$value
        break
    fi
done </proc/self/smaps 2>/dev/null

file meminfo /proc/meminfo
file vmstat /proc/vmstat
file buddyinfo /proc/buddyinfo
file zoneinfo /proc/zoneinfo
file pagetypeinfo /proc/pagetypeinfo

echo "@pagetide hugepages"
for pool in /sys/kernel/mm/hugepages/hugepages-*kB; do
    [ -r "$pool/nr_hugepages" ] || continue
    read -r all <"$pool/nr_hugepages"
    read -r free <"$pool/free_hugepages"
    size=${pool##*/hugepages-}
    echo "${size%kB} $all $free"
done

echo "@pagetide thp"
values /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/transparent_hugepage/shmem_enabled \
    /sys/kernel/mm/transparent_hugepage/defrag

# KiB of each size of huge page, and how many of processes are in part unmapped
echo "@pagetide partial"
for sizes in /sys/kernel/mm/transparent_hugepage/hugepages-*kB; do
    [ -r "$sizes/stats/nr_anon_partially_mapped" ] || continue
    read -r partial <"$sizes/stats/nr_anon_partially_mapped"
    size=${sizes##*/hugepages-}
    echo "${size%kB} $partial"
done

# bytes of a block of memory, in hexadecimal, and how many are offline
echo "@pagetide blocks"
if [ -r /sys/devices/system/memory/block_size_bytes ]; then
    read -r size </sys/devices/system/memory/block_size_bytes
    offline=0
    for block in /sys/devices/system/memory/memory[0-9]*; do
        [ -r "$block/state" ] && read -r state <"$block/state" || continue
        [ "$state" != offline ] || offline=$((offline + 1))
    done
    echo "$size $offline"
fi

echo "@pagetide reporting"
values /sys/module/page_reporting/parameters/page_reporting_order

echo "@pagetide sysctl"
values /proc/sys/vm/percpu_pagelist_high_fraction /proc/sys/vm/min_free_kbytes /proc/sys/vm/swappiness

# one line for each balloon: whether a driver has it, and the feature bits, bit 0 first
echo "@pagetide balloons"
for device in /sys/bus/virtio/devices/*; do
    [ -r "$device/device" ] && read -r id <"$device/device" || continue
    [ "$id" = 0x0005 ] || continue
    features=-
    read -r features <"$device/features"
    if [ -e "$device/driver" ]; then echo "driver $features"; else echo "none $features"; fi
done

echo "@pagetide zram"
for disk in /sys/block/zram*; do
    [ -r "$disk/mm_stat" ] && cat "$disk/mm_stat"
done

# bytes of each control group that has 32 MiB or more, in all, of processes and of shared memory; of names only those that
# every guest of systemd's or Kubernetes' has, and how far down it is
consumers() {
    for group in "$@"; do
        [ -r "$group/memory.current" ] && read -r all <"$group/memory.current" || continue
        [ "$all" -ge 33554432 ] || continue
        anon=0 shmem=0
        while read -r key value; do
            case $key in anon) anon=$value ;; shmem) shmem=$value ;; esac
        done <"$group/memory.stat"
        place=${group#/sys/fs/cgroup/}
        case $place in
        */*) name=${place%%/*} level=2 ;;
        *) name=$place level=1 ;;
        esac
        case $name in
        system.slice | user.slice | machine.slice | init.scope | kubepods | kubepods.slice | docker) ;;
        *) name=other ;;
        esac
        echo "$name $level $all $anon $shmem"
    done
}
echo "@pagetide cgroups"
[ ! -e /sys/fs/cgroup/cgroup.controllers ] || consumers /sys/fs/cgroup/* /sys/fs/cgroup/*/*

# how many pages have which flags (Documentation/admin-guide/mm/pagemap.rst), of 64 stretches of 512 pages: all of them
# would take too long
if [ ! -r /proc/kpageflags ] || ! echo 12345678 | od -A n -v -t x8 -w8 2>/dev/null | sort | uniq -c >/dev/null; then
    echo "@pagetide kpageflags missing"
else
    echo "@pagetide kpageflags"
    last=0
    while read -r range _ what; do
        case $what in *System\ RAM) last=$((0x${range#*-} / 1024 / page_kib)) ;; esac
    done </proc/iomem 2>/dev/null
    step=$((last / 512 / 64))
    [ "$step" -gt 0 ] || step=1
    at=0
    while [ "$at" -lt $((last / 512)) ]; do
        dd if=/proc/kpageflags bs=4096 skip="$at" count=1 2>/dev/null
        at=$((at + step))
    done | od -A n -v -t x8 -w8 | sort | uniq -c
fi

echo "@pagetide end"
