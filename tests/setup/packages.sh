#!/bin/sh
# Installs the Debian packages that a make target needs: packages.sh TARGET...
# Quick when all is there; says what is missing where it may not install.
set -eu

# What each target needs beyond a compiler.
packages_for() {
    case $1 in
    build) echo gcc libc6-dev ;;
    namespaces) echo iproute2 iptables nftables ipset conntrack busybox-static ;;
    runtime) echo iproute2 iptables containerd runc containernetworking-plugins busybox-static docker-registry apache2-utils ;;
    vm) echo user-mode-linux qemu-system-x86 busybox-static kmod cpio systemd dbus-daemon ipvsadm ipset iptables ;;
    units) echo systemd ;;
    *) echo "packages.sh: no target $1" >&2; exit 64 ;;
    esac
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=
for target in "$@"; do
    for package in $(packages_for "$target"); do
        installed "$package" || missing="$missing $package"
    done
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "packages.sh: please install what Debian calls:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "packages.sh: needs root for: apt-get install$missing" >&2
    exit 1
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# A containerd or registry that its package starts would be the machine's own, which no test uses:
# policy-rc.d is the package manager's way to say so. One that is already there stays in force.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT INT TERM
fi
# shellcheck disable=SC2086 # a list of words
apt-get install -y --no-install-recommends $missing >&2 ||
    { apt-get update >&2 && apt-get install -y --no-install-recommends $missing >&2; }
