#!/bin/bash
# tracefs' events/header_page ends after the first read(2), however little that took: a shell that reads it sees one letter.
#
# Whoever reads trace_pipe_raw, the binary pages of a trace, learns from events/header_page how a page begins (a time
# stamp, and how much of it is filled), and from events/header_event how an event does. Both look like the text files
# beside them, but are none of which one can read on: the kernel makes the text for the first read and answers every later
# one with the end of the file (kernel/trace/trace_events.c, show_header, 6.1: where the position is not 0 it returns 0).
# No error tells of it. So the text is cut to the size of the reader's first buffer: to 16 bytes for one who takes 16 at a
# time, and to one letter, a tab, for a shell's `read`, which takes single bytes so as not to take too much. The format of
# an event, in the folder beside, is read whole in any pieces.
#
# Seen with Linux 6.1.176-1 (Debian 12), and the busybox of Debian 12, under QEMU 11.1.3 by TCG; 6.18 does the same:
#   header_page: 205 bytes at once, 16 in pieces of 16
#   header_event: 205 bytes at once, 16 in pieces of 16
#   kmem/mm_page_alloc/format: 3683 bytes at once, 3683 in pieces of 16
#   a shell's read has 1 letters
# Exits 0 if it is so, 1 if it is otherwise now, 2 if it could not be tried.
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

release=6.1.0-50-cloud-amd64

cat >"$work/init" <<'INIT'
#!/bin/sh
busybox=/bin/busybox
$busybox mount -t tracefs tracefs /sys && cd /sys/events || exit
for file in header_page header_event kmem/mm_page_alloc/format; do
    echo "$file: $($busybox dd if=$file bs=64k 2>/dev/null | $busybox wc -c) bytes at once," \
        "$($busybox dd if=$file bs=16 2>/dev/null | $busybox wc -c) in pieces of 16"
done
IFS= read -r line <header_page
echo "a shell's read has ${#line} letters"
$busybox poweroff -f
INIT

use_suites trixie-backports trixie bookworm
unpack guest "linux-image-$release=6.1.176-1" busybox-static=1:1.35.0-4+deb12u1+b1
unpack_with_libraries qemu trixie-backports qemu-system-x86=1:11.1.3+ds-1~bpo13+1
make_initrd guest

qemu qemu-system-x86_64 -accel tcg -cpu max -m 512 -nodefaults -display none -serial stdio -no-reboot \
    -kernel "$work/guest/boot/vmlinuz-$release" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1" \
    </dev/null >"$work/log" 2>&1 &
await 120 "$work/log" "^a shell's read" || untested "the guest told nothing: $(tail -1 "$work/log")"
tr -d '\r' <"$work/log" | grep -aE "^(header|kmem|a shell)" | tee "$work/told"

# How many bytes of a file: FILE, at once or in pieces
bytes() {
    sed -nE "s|^$1: ([0-9]+) bytes at once, ([0-9]+) in pieces of 16|\\$2|p" "$work/told"
}

for file in header_page header_event; do
    (($(bytes $file 1) > 16)) || untested "events/$file is empty"
    (($(bytes $file 2) == 16)) || changed "events/$file can be read on: $(bytes $file 2) bytes in pieces of 16"
done
(($(bytes kmem/mm_page_alloc/format 1) == $(bytes kmem/mm_page_alloc/format 2))) || changed "an event's format is cut, too"
grep -qE "^a shell's read has [01] letters" "$work/told" || changed "a shell's read has the whole line"
