#!/bin/sh
# Unpacks Debian's cloud kernel for virtual machines, without installing it, and prints the directory
# that holds boot/ and lib/modules/: kernel.sh [DIRECTORY]. A second call answers from the directory.
set -eu

directory=${1:-/var/cache/longshore-tests/kernel}

fail() {
    echo "kernel.sh: $*" >&2
    exit 1
}

mkdir -p "$directory"
exec 9>"$directory/lock"
flock 9
if [ -d "$directory/root" ]; then
    echo "$directory/root"
    exit 0
fi

command -v apt-get >/dev/null || fail "apt-get is needed"
command -v depmod >/dev/null || fail "depmod is needed: install the package kmod"
case $(dpkg --print-architecture) in
amd64) meta=linux-image-cloud-amd64 ;;
arm64) meta=linux-image-cloud-arm64 ;;
*) fail "no cloud kernel for $(dpkg --print-architecture)" ;;
esac
# The package with the kernel itself is the one that the meta package depends on.
image() {
    apt-cache depends --important "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}
if [ -z "$(image)" ] && [ "$(id -u)" = 0 ]; then
    apt-get -q update >&2
fi
package=$(image)
[ -n "$package" ] || fail "apt knows no $meta"

work=$(mktemp -d "$directory/work.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
chmod 755 "$work"
mkdir "$work/download"
if id _apt >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    chown _apt "$work/download"
fi
(cd "$work/download" && apt-get -q download "$package" >&2)
dpkg-deb -x "$work/download/$package"_*.deb "$work/root"
# Later Debians keep modules under /usr.
[ -d "$work/root/lib/modules" ] || { mkdir -p "$work/root/lib" && mv "$work/root/usr/lib/modules" "$work/root/lib/modules"; }
depmod -b "$work/root" "$(basename "$work"/root/lib/modules/*)"
mv "$work/root" "$directory/root"
echo "$directory/root"
