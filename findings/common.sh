# Sourced by the scripts beside it that need packages: exact versions of Debian's, unpacked into a temporary folder and
# not installed. They come from the mirror that this machine's own apt sources name. For amd64 machines with Debian's keys.
# shellcheck shell=bash
set -euo pipefail

work=$(mktemp -d)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

clean_up() {
    local code=$? job
    set +e
    for job in $(jobs -p); do
        pkill -KILL -P "$job" # User-Mode Linux has processes of its guest, and does not end for less
        kill -KILL "$job"
        wait "$job"
    done 2>/dev/null
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT

changed() {
    echo "changed: $*"
    exit 1
}

untested() {
    echo "could not be tried: $*" >&2
    exit 2
}

mirror() {
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 == "Debian" && $3 !~ /^cdrom:/ {print $3; exit}'
}

# apt with the lists of the given suites, on a machine on which nothing is installed.
apt_apart() {
    apt-get -qq -y -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Acquire::Languages=none \
        -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false -o APT::Architecture=amd64 \
        -o APT::Architectures::=amd64 -o APT::Architectures::="${architecture:-amd64}" \
        -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State="$work/apt" -o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt" "$@" >/dev/null
}

# Reads the lists of these suites, for amd64 or for other architectures: SUITE[/ARCHITECTURE,...]...
use_suites() {
    local suite uri
    [[ $(dpkg --print-architecture 2>/dev/null) == amd64 && -f $keyring ]] || untested "this needs Debian on amd64"
    uri=$(mirror) && [[ -n $uri ]] || untested "apt's sources name no mirror of Debian"
    mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
    touch "$work/apt/status"
    for suite in "$@"; do
        [[ $suite == */* ]] || suite+=/amd64
        echo "deb [arch=${suite#*/} signed-by=$keyring] $uri ${suite%/*} main"
    done >"$work/sources.list"
    echo "reading the package lists of $*"
    apt_apart update || untested "the package lists of $* could not be had"
}

# Unpacks single packages into a folder: FOLDER PACKAGE=VERSION...
unpack() {
    local into=$work/$1
    mkdir -p "$into/archives"
    echo "downloading ${*:2}"
    (cd "$into/archives" && apt_apart download "${@:2}") || untested "the mirror does not have ${*:2} any more"
    for archive in "$into"/archives/*.deb; do
        dpkg-deb -x "$archive" "$into"
    done
    rm -r "$into/archives"
}

# Unpacks a package with every library it needs: FOLDER SUITE PACKAGE=VERSION
unpack_with_libraries() {
    mkdir -p "$work/$1"
    echo "downloading $3 with its libraries"
    apt_apart install --download-only -t "$2" "$3" || untested "the mirror does not have $3 any more"
    for archive in "$work"/apt/archives/*.deb; do
        dpkg-deb -x "$archive" "$work/$1"
    done
    rm "$work"/apt/archives/*.deb
}

# Starts a QEMU that was unpacked into $work/qemu, with its own libraries: NAME ARGUMENTS. To be started in the background.
qemu() {
    local root=$work/qemu lib=$work/qemu/usr/lib/x86_64-linux-gnu
    QEMU_MODULE_DIR=$lib/qemu exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib:$lib/pulseaudio" \
        "$root/usr/bin/$1" -L "$root/usr/share/seabios" -L "$root/usr/share/qemu" "${@:2}"
}

# Makes $work/initrd of $work/init (a shell script), a busybox and modules: FOLDER OF PACKAGES, MODULES...
make_initrd() {
    local root=$work/root module
    rm -rf "$root"
    mkdir -p "$root"/{bin,proc,sys,dev,tmp}
    cp "$(find "$work/$1" -name busybox -type f -perm -1)" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$work/init" "$root/init"
    chmod 755 "$root/init"
    for module in "${@:2}"; do
        module=$(find "$work/$1" -name "$module.ko*")
        cp "$module" "$root/"
        [[ $module != *.xz ]] || xz -d "$root/${module##*/}"
    done
    python3 - "$root" >"$work/initrd" <<'PYTHON'
import os, sys

os.chdir(sys.argv[1])
paths = [os.path.join(folder, name) for folder, folders, names in os.walk(".") for name in folders + names]
for number, path in enumerate([*paths, "TRAILER!!!"], 1):  # cpio(5), "newc"; mode 0 is what the trailer has
    mode = os.lstat(path).st_mode if os.path.lexists(path) else 0
    content = os.readlink(path).encode() if os.path.islink(path) else b""
    content = open(path, "rb").read() if os.path.isfile(path) and not content else content
    name = path.removeprefix("./").encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    sys.stdout.buffer.write(head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4))
PYTHON
}

# Waits until a file has a line that matches: SECONDS FILE PATTERN
await() {
    local end=$((SECONDS + $1))
    until grep -qE -- "$3" "$2" 2>/dev/null; do
        ((SECONDS < end)) || return
        sleep 0.5
    done
}
