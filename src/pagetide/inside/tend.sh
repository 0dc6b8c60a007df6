#!/bin/sh
# pagetide tend: has stock free page reporting give back what it leaves in pieces, whenever this guest is idle.
#
# Linux reports free blocks of one order and above (9 on x86), of zones that have more than 32 of them free. What is free
# otherwise, or sits on per-CPU lists, stays with the host. While the guest is idle this script compacts once; if that
# leaves much, it lowers the order, to 4 and then to 0, wakes the reporter, and puts everything back when nothing more
# comes, at once when the guest gets busy, at its end, and at its next start after a kill. Needs root to write.
#
# Linux: mm/compaction.c (compact_memory), mm/page_reporting.c (the order, a zone's watermark, and 2 s from a free to a
# pass), mm/page_alloc.c (percpu_pagelist_high_fraction, percpu_pagelist_fraction before 5.14).

set -u

usage() {
    cat <<'EOF'
usage: tend.sh [--dry-run] [--idle S] [--busy PERCENT] [--worth MIB] [--least-order N] [--once]
  --dry-run         say what would be done now if the guest were idle, and why, and change nothing
  --idle S          idle for so long before anything is done (5)
  --busy PERCENT    busy above this use of one processor, or 5 % of all (30)
  --worth MIB       leave less than this alone (16)
  --least-order N   do not lower the order below this (0)
  --once            end after the first time that the guest was tended
Each line of the log says what was done and what it brought. Ctrl-C or SIGTERM puts everything back.
EOF
}

fail() {
    echo "tend: $*" >&2
    exit 1
}

dry_run= once= idle_s=5 busy_percent=30 worth_mib=16 least_order=0
root=${TEND_ROOT:-}
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry_run=1 ;;
    --once) once=1 ;;
    --idle | --busy | --worth | --least-order)
        case ${2:-} in
        '' | *[!0-9]*) fail "$1 needs a whole number, not '${2:-}'" ;;
        esac
        case $1 in
        --idle) idle_s=$2 ;;
        --busy) busy_percent=$2 ;;
        --worth) worth_mib=$2 ;;
        --least-order) least_order=$2 ;;
        esac
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "there is no option $1; tend.sh --help lists them" ;;
    esac
    shift
done

order_file=$root/sys/module/page_reporting/parameters/page_reporting_order
state_folder=$root/run
[ -d "$state_folder" ] || state_folder=$root/tmp
state_file=$state_folder/pagetide-tend
pcp_file=$root/proc/sys/vm/percpu_pagelist_high_fraction
[ -e "$pcp_file" ] || pcp_file=$root/proc/sys/vm/percpu_pagelist_fraction
page_kib=4
while read -r name value _; do
    [ "$name" = KernelPageSize: ] && page_kib=$value && break
done </proc/self/smaps
cpus=0
while read -r name _; do
    case $name in cpu[0-9]*) cpus=$((cpus + 1)) ;; esac
done <"$root/proc/stat"

[ -e "$order_file" ] || fail "this kernel has no free page reporting ($order_file is not there)"
[ -n "$dry_run" ] || [ -w "$order_file" ] || fail "$order_file cannot be written: run it as root, or with --dry-run"

log() { echo "tend: $*"; }

# pause S: a sleep; where `read` has a limit (busybox's has, dash's has not) it is no process, and a signal ends it at once
pause() { sleep "$1"; }
never=$state_file.never # nobody writes to it
if [ -z "$dry_run" ]; then
    rm -f "$never"
    if { echo | read -t 1 -r _ && mkfifo "$never" && exec 8<>"$never"; } 2>/dev/null; then
        pause() { read -t "$1" -r _ <&8; }
        rm -f "$never"
    fi
fi

# write VALUE FILE: false if the kernel does not take it
write() {
    if [ -n "$dry_run" ]; then
        log "would write $1 to ${2#"$root"}"
    elif ! { echo "$1" >"$2"; } 2>/dev/null; then
        log "cannot write $1 to ${2#"$root"}"
        return 1
    fi
}

# False if something cannot be put back, which stays written down for the next run.
put_back() {
    rm -f "$state_file.new" # a signal came before anything was changed
    [ -e "$state_file" ] || return 0
    read -r saved_order saved_fraction <"$state_file"
    is_back=1
    write "$saved_order" "$order_file" || is_back=
    [ "$saved_fraction" = - ] || write "$saved_fraction" "$pcp_file" || is_back=
    [ -n "$is_back" ] && rm -f "$state_file"
}

# What changes is written down first, so that a kill at any point can be mended.
keep_state() {
    [ -z "$dry_run" ] && [ ! -e "$state_file" ] || return 0
    fraction=-
    [ ! -e "$pcp_file" ] || read -r fraction <"$pcp_file"
    echo "$order $fraction" >"$state_file.new"
    mv "$state_file.new" "$state_file"
}

# look ORDER: sets left_kib, what is free and not reported from this order: smaller blocks, and all of a zone that has no
# more free than its low watermark and 32 blocks of the order; and listed_kib, what is on per-CPU lists
look() {
    left_kib=0 listed_kib=0 lows= zone=
    while read -r name value _ rest; do
        case $name in
        Node) zone=$value$rest ;;
        low) lows="$lows $zone=$value " ;;
        count:) listed_kib=$((listed_kib + value * page_kib)) ;;
        esac
    done <"$root/proc/zoneinfo"
    while read -r _ node _ zone counts; do
        low=${lows#*" $node$zone="}
        [ "$low" != "$lows" ] && low=${low%% *} || low=0
        free=0 below=0 at=0
        for count in $counts; do
            free=$((free + (count << at))) at=$((at + 1))
            [ $at -gt "$1" ] || below=$free
        done
        [ $free -gt $((low + (32 << $1))) ] || below=$free
        left_kib=$((left_kib + below * page_kib))
    done <"$root/proc/buddyinfo"
}

# Sets reports: how often the balloon's device has interrupted, which it does once a report and seldom otherwise.
count_reports() {
    reports=0
    while read -r line; do
        case $line in
        *"$balloon"*)
            set -- $line
            shift
            for word in "$@"; do
                case $word in *[!0-9]*) break ;; esac
                reports=$((reports + word))
            done
            ;;
        esac
    done <"$root/proc/interrupts"
}

# Sets used: hundredths of a second that processors were in use, all together.
count_used() {
    read -r _ user nice system _ _ irq softirq _ <"$root/proc/stat"
    used=$((user + nice + system + irq + softirq))
}

is_pressed() {
    [ -r "$root/proc/pressure/memory" ] || return 1
    read -r _ average _ <"$root/proc/pressure/memory"
    average=${average#avg10=}
    [ "${average%%.*}" -ge 5 ]
}

# stay_idle S: sleeps so long; false if the guest was busy in some second of it, which it cannot have been if it used no
# more in all of them than it may in one. Without a second's sleep nothing can be told, so nothing is done.
stay_idle() {
    count_used
    spent=$used
    pause "$1"
    count_used
    spent=$((used - spent))
    [ $spent -le $limit ] && ! is_pressed
}

# wait_dry MAX_S: until at most two reports came in five seconds, which is what this script's own small allocations
# bring again and again at order 0; false if the guest got busy
wait_dry() {
    waited=0 few=0
    count_reports
    seen=$reports
    while [ $waited -lt "$1" ] && [ $few -lt 5 ]; do
        stay_idle 1 || return 1
        count_reports
        waited=$((waited + 1)) few=$((few + 1))
        if [ $((reports - seen)) -gt 2 ]; then few=0 seen=$reports; fi
    done
}

# A pass begins when a block of the order or above is freed, which a block that goes onto a per-CPU list is not. So this
# frees more than those lists hold: a buffer of dd's.
wake() {
    high_kib=0
    while read -r name value _; do
        [ "$name" != high: ] || high_kib=$((high_kib + value * page_kib))
    done <"$root/proc/zoneinfo"
    wake_mib=$((high_kib / cpus / 1024 + 4))
    [ -n "$dry_run" ] || dd if=/dev/zero of=/dev/null bs=${wake_mib}M count=1 2>/dev/null
}

trim_lists() {
    [ -e "$pcp_file" ] && [ $listed_kib -ge $((worth_kib / 4)) ] || return 0
    keep_state
    write 1000000 "$pcp_file" && [ -z "$dry_run" ] || return 0
    pause 2
    log "per-CPU lists trimmed, which held $((listed_kib / 1024)) MiB"
}

# One time of tending, from the first step to putting back.
tend() {
    look "$order"
    held_kib=$((left_kib + listed_kib))
    if [ $held_kib -lt $worth_kib ]; then
        [ -n "$told" ] || log "nothing to do: order $order leaves $((held_kib / 1024)) MiB, those on per-CPU lists counted"
        told=1
        return 0
    fi
    log "order $order leaves $((left_kib / 1024)) MiB of what is free, and $((listed_kib / 1024)) MiB are on per-CPU lists"
    count_reports
    first=$reports
    trim_lists
    look "$order"
    tries=0 gain_kib=$left_kib
    while [ $tries -lt $compactions ] && [ $left_kib -ge $worth_kib ] && [ $((gain_kib * 5)) -ge $left_kib ]; do
        before_kib=$left_kib
        write 1 "$root/proc/sys/vm/compact_memory" || { compactions=0 && break; }
        if [ -n "$dry_run" ]; then
            log "if that left over $worth_mib MiB, the order would be lowered to 4, then 0, then put back"
            break
        fi
        tries=$((tries + 1))
        look "$order"
        gain_kib=$((before_kib - left_kib))
        log "compacted: order $order takes $((gain_kib / 1024)) of those $((before_kib / 1024)) MiB now"
    done
    [ -z "$dry_run" ] || return 0
    if [ $((held_kib - left_kib)) -ge $((held_kib / 10)) ]; then
        compactions=3
        wake
        wait_dry 60 || return 1
        look "$order"
    elif [ $compactions -gt 1 ]; then
        compactions=1  # it brings nothing here: once is enough to see whether it does one day
    fi
    enough_kib=$((held_kib / 8))
    [ $enough_kib -ge $worth_kib ] || enough_kib=$worth_kib
    for step in 4 0; do
        [ $step -ge $least_order ] && [ "$order" -gt $step ] && [ $left_kib -ge $enough_kib ] || continue
        before_kib=$left_kib
        look $step
        if [ $((before_kib - left_kib)) -ge $((worth_kib / 2)) ]; then
            log "order $order lowered to $step, which takes $(((before_kib - left_kib) / 1024)) MiB more"
            keep_state
            write $step "$order_file" || { left_kib=$before_kib && continue; }
            wake
            wait_dry 120 || return 1
        fi
    done
    count_reports
    log "done after $((reports - first)) interrupts of the balloon; $((left_kib / 1024)) MiB are left"
}

long_look_s=4
worth_kib=$((worth_mib * 1024))
limit=$busy_percent
[ $((cpus * 5)) -le $limit ] || limit=$((cpus * 5))
compactions=3
told=
balloon=virtio
for found in "$root"/sys/bus/virtio/drivers/virtio_balloon/virtio*; do
    [ ! -e "$found" ] || balloon=${found##*/}
done
grep -q "$balloon" "$root/proc/interrupts" || balloon=virtio
[ -n "$dry_run" ] || put_back ||
    fail "what an earlier run changed cannot be put back; it stays written down in $state_file"
read -r order <"$order_file"
case $order in
'' | *[!0-9]*) fail "nothing reports in this guest: its balloon has no free page reporting (page_reporting_order is '$order')" ;;
esac
if [ -n "$dry_run" ]; then
    tend
    exit 0
fi
# The first signal ends it; the next ones are ignored, so that all is put back.
trap 'trap "" INT TERM HUP; exit 0' INT TERM HUP
trap 'trap "" INT TERM HUP; put_back || exit 1' EXIT
log "tending a guest that reports from order $order; idle is at most $limit % of a processor for $idle_s s"
while :; do
    idle=0 look_s=1
    while [ $idle -lt $idle_s ]; do
        if stay_idle $look_s; then
            idle=$((idle + look_s)) look_s=1
        else
            idle=0 told=
            # A look may be a process, so a guest that stays busy is looked at seldom.
            [ $spent -gt $((limit * look_s)) ] && look_s=$long_look_s || look_s=1
        fi
    done
    if tend; then
        [ -z "$once" ] || exit 0
    else
        log "the guest got busy"
    fi
    put_back
    # Again once it was busy; and what was freed since without that is worth a look once a minute.
    rested=0 look_s=$long_look_s
    while [ $rested -lt 60 ]; do
        looked_s=$look_s
        if ! stay_idle $look_s; then
            [ $rested -eq 0 ] && [ $spent -le $((limit * look_s)) ] || { told= && break; }
            look_s=1 # it always does a little, of which a long look tells nothing
        fi
        rested=$((rested + looked_s))
    done
done
