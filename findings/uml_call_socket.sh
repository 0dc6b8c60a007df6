#!/bin/bash
# User-Mode Linux gives a vhost-user back-end a socket to call it with, not an eventfd.
#
# The protocol's text says of SET_VRING_CALL only that an event file descriptor comes with it, and QEMU, Cloud Hypervisor
# and others give an eventfd there, which back-ends come to count on. UML's comes of os_pipe() in
# arch/um/drivers/virtio_uml.c, which makes a socketpair, since UML wants a signal from it; the kick, which UML itself
# writes, is an eventfd. (With in-band notifications it gives none.) So a back-end that checks that it was handed an
# eventfd refuses UML, and one that calls without looking at the result meets a stream, which holds 8 bytes a call and
# can fill, where an eventfd adds up.
#
# Seen with user-mode-linux 7.2um1 (Debian unstable) and a back-end of no more than the protocol (raw_backend.py):
#   SET_VRING_CALL 0x0 <AF_UNIX SOCK_STREAM>
#   SET_VRING_KICK 0x0 <anon_inode:[eventfd]>
# Exits 0 if it is so, 1 if it is otherwise now, 2 if it could not be tried.
source "$(dirname "$0")/common.sh"

reporting=0x20

use_suites sid
unpack_with_libraries uml sid user-mode-linux=7.2um1
unpack guest busybox-static=1:1.38.0-3+b1

# The kernel runs itself again by /proc/self/exe, so it cannot be started by a loader: it has to ask for its own one.
# There is no room for a longer name in it.
LC_ALL=C sed -i 's|/lib64/ld-linux-x86-64\.so\.2\x00|/proc/self/fd/9\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00|' \
    "$work/uml/usr/bin/linux.uml"

cat >"$work/init" <<'INIT'
#!/bin/sh
/bin/busybox insmod /virtio_balloon.ko
/bin/busybox sleep 5
echo "done"
/bin/busybox sleep 1000
INIT
mv "$work/uml/usr/lib/uml/modules" "$work/guest/modules"
make_initrd guest virtio_balloon

python3 "$(dirname "$0")/raw_backend.py" "$work/socket" "$reporting" >"$work/messages" &
await 20 "$work/messages" '^listening' || untested "the back-end does not start"
(
    exec 9<"$work/uml/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    export LD_LIBRARY_PATH=$work/uml/usr/lib/x86_64-linux-gnu
    exec "$work/uml/usr/bin/linux.uml" mem=256M initrd="$work/initrd" virtio_uml.device="$work/socket:5" \
        uml_dir="$work" con=null con0=fd:0,fd:1 quiet panic=1
) </dev/null >"$work/log" 2>&1 &
await 60 "$work/log" '^done' || untested "UML does not boot: $(tail -1 "$work/log")"

grep -E '^SET_VRING_(KICK|CALL)' "$work/messages"
grep -q '^queue 2 w' "$work/messages" || untested "no report came"
grep -qE '^SET_VRING_KICK .*eventfd' "$work/messages" || changed "the kick is no eventfd"
grep -qE '^SET_VRING_CALL .*AF_UNIX SOCK_STREAM' "$work/messages" || changed "the call is no Unix stream socket"
