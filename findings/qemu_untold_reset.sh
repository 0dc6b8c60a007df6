#!/bin/bash
# QEMU's generic vhost-user device tells its back-end of a guest's reset exactly what it tells of a pause.
#
# A back-end that offers the protocol features STATUS and RESET_DEVICE, which QEMU accepts, would expect SET_STATUS 0
# or RESET_DEVICE when the guest is reset. From vhost-user-test-device neither comes, nor does SET_OWNER; the status
# that the back-end keeps goes on as it was. What comes are SET_VRING_ENABLE 0 and GET_VRING_BASE for each queue, as at
# "stop" of a virtual machine, and at the next start the messages that come at "cont". They differ in SET_VRING_BASE alone: after a pause what GET_VRING_BASE was answered,
# after a reset 0 (and in where the queues are, if the new driver put them elsewhere). So a back-end that keeps state
# beside its queues has to take a queue that was left elsewhere and starts at 0 for a new driver's.
#
# Seen with QEMU 11.1.3 (Debian 13 backports), Linux 6.1.176 (Debian 12) as the guest, and a back-end of no more than the
# protocol (raw_backend.py), with a balloon that reports free pages:
#   stop cont: 29 messages, SET_VRING_BASE 0x0 0x1,SET_VRING_BASE 0x2 0x4, 0 of a status, a reset or an owner
#   system_reset: 29 messages, SET_VRING_BASE 0x0 0x0,SET_VRING_BASE 0x2 0x0, 0 of a status, a reset or an owner
# Exits 0 if it is so, 1 if it is otherwise now, 2 if it could not be tried.
source "$(dirname "$0")/common.sh"

reporting=0x20
release=6.1.0-50-cloud-amd64

use_suites trixie-backports trixie bookworm
unpack guest "linux-image-$release=6.1.176-1" busybox-static=1:1.35.0-4+deb12u1+b1
unpack_with_libraries qemu trixie-backports qemu-system-x86=1:11.1.3+ds-1~bpo13+1

cat >"$work/init" <<'INIT'
#!/bin/sh
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_balloon; do
    [ ! -e /$module.ko ] || /bin/busybox insmod /$module.ko
done
echo "booted"
while :; do /bin/busybox sleep 1000; done
INIT
make_initrd guest virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_balloon

# Says something to QEMU's monitor (QMP): COMMAND
qmp() {
    python3 - "$work/qmp" "$1" <<'PYTHON'
import json, socket, sys

with socket.socket(socket.AF_UNIX) as monitor:
    monitor.connect(sys.argv[1])
    lines = monitor.makefile("rw")
    for command in ("qmp_capabilities", sys.argv[2]):
        lines.write(json.dumps({"execute": command}) + "\n")
        lines.flush()
        while "return" not in (answer := json.loads(lines.readline())):
            assert "error" not in answer, answer
PYTHON
}

# What the back-end has been told after its first so many messages, without what its guest did: LINE
told_after() {
    tail -n +"$(($1 + 1))" "$work/messages" | grep -vE '^(queue|GET_CONFIG|SET_CONFIG) '
}

# Waits until the queues have been started as many times, and this came after that: TIMES [PATTERN]
await_start() {
    local end=$((SECONDS + 120))
    until (($(grep -c '^SET_VRING_ENABLE 0x2 0x1' "$work/messages") >= $1)) &&
        tac "$work/messages" | sed '/^SET_VRING_ENABLE 0x2 0x1/q' | grep -q "${2:-.}"; do
        ((SECONDS < end)) || untested "the guest did not start: $(tail -1 "$work/log")"
        sleep 0.5
    done
    sleep 3
}

python3 "$(dirname "$0")/raw_backend.py" "$work/socket" "$reporting" >"$work/messages" &
await 20 "$work/messages" '^listening' || untested "the back-end does not start"
qemu qemu-system-x86_64 -accel tcg -cpu max -m 512 -object memory-backend-memfd,id=ram,size=512M,share=on \
    -machine q35,memory-backend=ram -nodefaults -display none -serial stdio -qmp unix:"$work/qmp",server=on,wait=off \
    -chardev socket,id=balloon,path="$work/socket" \
    -device vhost-user-test-device-pci,chardev=balloon,virtio-id=5,num_vqs=3,vq_size=128,config_size=16 \
    -kernel "$work/guest/boot/vmlinuz-$release" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1" \
    </dev/null >"$work/log" 2>&1 &

await_start 1 '^queue 2 '
grep -q '^SET_PROTOCOL_FEATURES 0x1.2..$' "$work/messages" ||
    untested "STATUS and RESET_DEVICE are not accepted: $(grep SET_PROTOCOL "$work/messages")"
for event in "stop cont" system_reset; do
    before=$(wc -l <"$work/messages")
    for command in $event; do
        qmp "$command"
    done
    starts=$((${starts:-1} + 1))
    await_start "$starts" "$([[ $event != system_reset ]] || echo '^queue 2 ')"
    told_after "$before" >"$work/told of $event"
    echo "$event: $(wc -l <"$work/told of $event") messages, $(grep '^SET_VRING_BASE 0x[02]' "$work/told of $event" |
        paste -sd,), $(grep -cE '^(SET_STATUS|RESET_DEVICE|SET_OWNER)' "$work/told of $event") of a status, a reset or an owner"
done
cut -d' ' -f1 "$work/told of stop cont" >"$work/paused"
cut -d' ' -f1 "$work/told of system_reset" | cmp -s "$work/paused" - || changed "a reset is told otherwise than a pause"
grep -q '^SET_VRING_BASE 0x2 0x0' "$work/told of stop cont" && untested "no queue was in use at the pause"
grep -q '^SET_VRING_BASE 0x2 0x0' "$work/told of system_reset" || changed "the queue goes on after a reset"
