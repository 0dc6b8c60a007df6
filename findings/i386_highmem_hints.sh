#!/bin/bash
# On 32-bit x86, free page hints leave HighMem out, and free page reports do not.
#
# Both features of the balloon name free memory to the host, and the specification makes no difference in what memory
# that is. But the Linux driver gets what it hints by allocating blocks (drivers/virtio/virtio_balloon.c,
# get_free_page_and_send), with flags that lack __GFP_HIGHMEM, so only lowmem is ever hinted; reports are taken from the
# free lists of every zone (mm/page_reporting.c). So a migration that leaves hinted pages out still copies all of a PAE
# guest's HighMem, however free it is: the larger the guest, the less the hints are worth.
#
# Seen with Linux 6.1.176 (Debian 12, 686-pae) in a guest of 2 GiB, QEMU 11.1.3 (Debian 13 backports,
# vhost-user-test-device), and a back-end of no more than the protocol (raw_backend.py):
#   HighFree: 1164 MiB LowFree: 828 MiB
#   hinted: 780 MiB of lowmem, 0 MiB of HighMem
#   reported: 16 MiB of lowmem, 1146 MiB of HighMem (most of lowmem is still held for the hints)
# Exits 0 if it is so, 1 if it is otherwise now, 2 if it could not be tried.
architecture=i386 # of the guest
source "$(dirname "$0")/common.sh"

hints_and_reports=0x28
release=6.1.0-50-686-pae
lowmem_end=$((896 << 20)) # and a little less of it is lowmem

use_suites trixie-backports trixie bookworm/i386
unpack guest "linux-image-$release:i386=6.1.176-1" busybox-static:i386=1:1.35.0-4+deb12u1+b1
unpack_with_libraries qemu trixie-backports qemu-system-x86=1:11.1.3+ds-1~bpo13+1

modules=(virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_balloon)
cat >"$work/init" <<INIT
#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox awk '/(High|Low)Free/ {print \$1, int(\$2 / 1024), "MiB"}' /proc/meminfo
for module in ${modules[*]}; do
    /bin/busybox insmod /\$module.ko
done
echo "booted"
while :; do /bin/busybox sleep 1000; done
INIT
make_initrd guest "${modules[@]}"

python3 "$(dirname "$0")/raw_backend.py" "$work/socket" "$hints_and_reports" >"$work/messages" &
await 20 "$work/messages" '^listening' || untested "the back-end does not start"
qemu qemu-system-x86_64 -accel tcg -cpu max -m 2048 -object memory-backend-memfd,id=ram,size=2G,share=on \
    -machine q35,memory-backend=ram -nodefaults -display none -serial stdio -no-reboot \
    -chardev socket,id=balloon,path="$work/socket" \
    -device vhost-user-test-device-pci,chardev=balloon,virtio-id=5,num_vqs=4,vq_size=128,config_size=16 \
    -kernel "$work/guest/boot/vmlinuz-$release" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1" \
    </dev/null >"$work/log" 2>&1 &
await 120 "$work/log" '^booted' || untested "the guest does not boot: $(tail -1 "$work/log")"
await 60 "$work/messages" '^queue 2 w' || untested "no hint came"
await 60 "$work/messages" '^queue 3 w' || untested "no report came"
sleep 20

# How much of HighMem, and how much else, was named on a queue, in MiB: QUEUE
named() {
    python3 - "$work/messages" "queue $1 " "$lowmem_end" <<'PYTHON'
import re, sys

named = [0, 0]
for line in open(sys.argv[1]):
    if line.startswith(sys.argv[2]):
        for address, size in re.findall(r"w (0x\w+) (\d+)", line):
            named[int(address, 16) >= int(sys.argv[3])] += int(size) >> 20
print(*named)
PYTHON
}

grep -aE '^(High|Low)Free' "$work/log" | tr -d '\r' | paste -sd' '
read -r hinted_low hinted_high < <(named 2)
read -r reported_low reported_high < <(named 3)
echo "hinted: $hinted_low MiB of lowmem, $hinted_high MiB of HighMem"
echo "reported: $reported_low MiB of lowmem, $reported_high MiB of HighMem"
((hinted_low > 100)) || untested "hardly anything was hinted"
((reported_high > 100)) || changed "HighMem is not reported either"
((hinted_high == 0)) || changed "HighMem is hinted, too"
