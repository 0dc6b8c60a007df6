#!/bin/bash
# A 1 GiB guest with 16 KiB pages never reports a free page, though free page reporting is negotiated.
#
# With pages of 16 KiB a pageblock is 2048 pages: 32 MiB instead of x86's 2 MiB, and reporting begins at that order. Beyond
# that, Linux reports from a zone only while it has free the low watermark and a full batch on top of it, 32 blocks of
# that order (mm/page_reporting.c, page_reporting_process_zone, 6.12): 32 * 32 MiB = 1 GiB, where it is 64 MiB on x86. So
# a guest of 1 GiB does not return a byte in all its life, however empty it is: the feature is accepted, nothing fails,
# and nothing in the log tells. With 3 GiB the same kernel returns what was freed.
#
# Seen with Linux 6.12.117-1 (Debian 13, arm64-16k), and QEMU 11.1.3's own virtio-balloon-pci, virt machine, by TCG:
#   guest of 3072 MiB: held 714 MiB after 600 MiB were written, 362 MiB 40 s after they were removed, 2755 MiB free
#   guest of 1024 MiB: held 697 MiB after 600 MiB were written, 697 MiB 40 s after they were removed, 896 MiB free
# Exits 0 if it is so, 1 if it is otherwise now, 2 if it could not be tried.
# shellcheck source=common.sh
architecture=arm64 # of the guest
source "$(dirname "$0")/common.sh"

release=6.12.117+deb13-arm64-16k
written_mib=600

cat >"$work/init" <<'INIT'
#!/bin/sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
$busybox mount -t tmpfs -o size=90% tmpfs /tmp
$busybox insmod /virtio_balloon.ko
echo "negotiated $($busybox cut -c 6 /sys/bus/virtio/drivers/virtio_balloon/virtio*/features)"
$busybox dd if=/dev/zero of=/tmp/file bs=1M count=600 2>/dev/null && echo "written"
$busybox sleep 5
$busybox rm /tmp/file
echo "removed, $($busybox awk '/MemFree/ {print int($2 / 1024)}' /proc/meminfo) MiB free"
while :; do $busybox sleep 1000; done
INIT

# Of the memory of a guest, in MiB, what its host holds: PID
held_mib() {
    local fd
    for fd in /proc/"$1"/fd/*; do
        [[ $(readlink "$fd") != /memfd:memory-backend-memfd* ]] || echo $(($(stat -L -c %b "$fd") / 2048))
    done
}

# Boots a guest, and prints what it did: MIB
look() {
    local log=$work/log-$1 pid before after
    qemu qemu-system-aarch64 -accel tcg -machine virt,memory-backend=ram -cpu max,pauth-impdef=on -m "$1" \
        -object memory-backend-memfd,id=ram,size="$1M",share=on -nodefaults -display none -serial stdio -no-reboot \
        -device virtio-balloon-pci,free-page-reporting=on -kernel "$work/guest/boot/vmlinuz-$release" \
        -initrd "$work/initrd" -append "console=ttyAMA0 quiet panic=-1" </dev/null >"$log" 2>&1 &
    pid=$!
    await 120 "$log" '^negotiated 1' || untested "the guest of $1 MiB has no balloon that reports: $(tail -1 "$log")"
    await 120 "$log" '^written' || untested "the guest of $1 MiB wrote nothing"
    sleep 2
    before=$(held_mib "$pid")
    await 60 "$log" '^removed' || untested "the guest of $1 MiB removed nothing"
    sleep 40
    after=$(held_mib "$pid")
    kill "$pid"
    ((before >= written_mib)) || untested "the host held only $before MiB when $written_mib MiB were written"
    echo "guest of $1 MiB: held $before MiB after $written_mib MiB were written, $after MiB 40 s after they were" \
        "$(grep -a -o 'removed,.*free' "$log")"
    returned_mib=$((before - after))
}

use_suites trixie-backports trixie/amd64,arm64
unpack guest "linux-image-$release:arm64=6.12.117-1" busybox-static:arm64=1:1.37.0-6+b9
unpack_with_libraries qemu trixie-backports qemu-system-arm=1:11.1.3+ds-1~bpo13+1
make_initrd guest virtio_balloon

look 3072
((returned_mib > 100)) || changed "with 3 GiB it returns only $returned_mib MiB either"
look 1024
((returned_mib <= 0)) || changed "with 1 GiB it returns $returned_mib MiB"
