#!/bin/bash
# A background job that ends while BusyBox's ash waits to open a fifo ends the shell; as a guest's init that is a panic.
#
# Opening a fifo waits for who opens its other end. ash hears of the end of its jobs by SIGCHLD, with a handler that has
# no system call restarted, so that `wait` wakes up. It interrupts such an open, too, and ash does not try again: "can't
# open: Interrupted system call", which after `exec` is the end of a shell that is not interactive, as POSIX has it for
# a redirection that failed. A job that ends a moment sooner or later does no harm, so an init may run for weeks.
# dash, ash's relative, waits on, and so does bash. Opened for reading and writing (`exec 3<>fifo`) nobody waits.
#
# Seen with busybox-static 1:1.35.0-4+deb12u1+b1 (Debian 12), 1:1.37.0-6+b9 (Debian 13) and dash 0.5.12-2, Linux 6.18:
#   busybox 1.35, no job: read a line
#   busybox 1.35, a job that ends meanwhile: script: line 5: can't open fifo: Interrupted system call
#   busybox 1.35, a job, opened for both: read a line
#   busybox 1.37, no job: read a line
#   busybox 1.37, a job that ends meanwhile: script: line 5: can't open fifo: Interrupted system call
#   busybox 1.37, a job, opened for both: read a line
#   dash 0.5.12, no job: read a line
#   dash 0.5.12, a job that ends meanwhile: read a line
#   dash 0.5.12, a job, opened for both: read a line
# Exits 0 if it is so, 1 if it is otherwise now, 2 if it could not be tried.
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

use_suites trixie bookworm
unpack busybox-old busybox-static=1:1.35.0-4+deb12u1+b1
unpack busybox-new busybox-static=1:1.37.0-6+b9
unpack dash dash=0.5.12-2

cat >"$work/script" <<'SCRIPT'
{ sleep 1; echo "a line" >"$1"; } >/dev/null 2>&1 &
if [ "$2" != alone ]; then
    sleep 0.3 >/dev/null 2>&1 &
fi
if [ "$2" = both ]; then exec 3<>"$1"; else exec 3<"$1"; fi
read -r line <&3
echo "read $line"
SCRIPT

# What a shell says: WAY TO OPEN, SHELL...
said() {
    local fifo
    fifo=$(mktemp -d -p "$work")/fifo
    mkfifo "$fifo"
    timeout 10 "${@:2}" "$work/script" "$fifo" "$1" 2>&1 | sed "s|$work/||g; s|tmp[^ ]*/||" || true
    sleep 1.5 4<>"$fifo" # lets the writer go, if its shell is gone
}

tell() {
    echo "$1, no job: $(said alone "${@:2}")"
    echo "$1, a job that ends meanwhile: $(said job "${@:2}")"
    echo "$1, a job, opened for both: $(said both "${@:2}")"
}

find_shell() {
    find "$work/$1" -name "${1%%-*}" -type f -perm -1
}

{
    tell "busybox 1.35" "$(find_shell busybox-old)" sh
    tell "busybox 1.37" "$(find_shell busybox-new)" sh
    tell "dash 0.5.12" "$(find_shell dash)"
} | tee "$work/seen"
diff - "$work/seen" <<'SEEN' || changed "see above"
busybox 1.35, no job: read a line
busybox 1.35, a job that ends meanwhile: script: line 5: can't open fifo: Interrupted system call
busybox 1.35, a job, opened for both: read a line
busybox 1.37, no job: read a line
busybox 1.37, a job that ends meanwhile: script: line 5: can't open fifo: Interrupted system call
busybox 1.37, a job, opened for both: read a line
dash 0.5.12, no job: read a line
dash 0.5.12, a job that ends meanwhile: read a line
dash 0.5.12, a job, opened for both: read a line
SEEN
