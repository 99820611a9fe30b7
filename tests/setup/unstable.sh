#!/bin/sh
# Unpacks a package of Debian unstable beside the machine's own and prints the path of a program in it:
# unstable.sh PACKAGE PROGRAM DIRECTORY, the program's path without its first slash. Nothing is installed
# and apt's configuration stays as it is: the lists and the download live in DIRECTORY, the mirror is the
# one that apt already uses, and apt checks the signatures with Debian's keyring. A second call answers
# from the directory.
set -eu

package=$1
program=$2
directory=$3
binary=$directory/root/$program
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

if [ -x "$binary" ]; then
    echo "$binary"
    exit 0
fi

fail() {
    echo "unstable.sh: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "apt-get is needed"
[ -r "$keyring" ] || fail "the package debian-archive-keyring is needed"

targets() {
    apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages'
}
mirror=$(targets | sed -n 's/^Debian main //p' | grep -v security | head -n 1)
if [ -z "$mirror" ]; then
    [ "$(id -u)" != 0 ] || apt-get update >&2
    mirror=$(targets | sed -n 's/^Debian main //p' | grep -v security | head -n 1)
fi
[ -n "$mirror" ] || fail "apt knows no Debian mirror"

# Unpacked aside and renamed, so that an interrupted call leaves nothing that looks finished; one call
# at a time.
mkdir -p "$directory"
exec 9>"$directory/lock"
flock 9
if [ -x "$binary" ]; then
    echo "$binary"
    exit 0
fi
work=$(mktemp -d "$directory/work.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
# apt drops its privileges for downloads.
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/download"
if id _apt >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    chown _apt "$work/download" "$work/lists/partial" "$work/cache/archives/partial"
fi
cat >"$work/unstable.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: sid
Components: main
Signed-By: $keyring
SOURCES
# Nor does it matter what is installed, perhaps in a version that unstable has not.
: >"$work/status"
private() {
    apt-get -q -o "Dir::State::Status=$work/status" -o "Dir::Etc::SourceList=$work/unstable.sources" -o Dir::Etc::SourceParts=- \
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Languages=none "$@" >&2
}
private update
(cd "$work/download" && private download "$package")
dpkg-deb -x "$work"/download/"$package"_*.deb "$work/root"
[ -x "$work/root/$program" ] || fail "there is no $program in unstable's $package"
rm -rf "$directory/root"
mv "$work/root" "$directory/root"
echo "$binary"
