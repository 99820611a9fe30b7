#!/bin/sh
# Unpacks Debian unstable's containerd (2.x) beside the machine's own and prints the path of its
# binary: containerd2.sh [DIRECTORY]. Nothing is installed.
set -eu
binary=$("$(dirname "$0")/unstable.sh" containerd usr/bin/containerd "${1:-/var/cache/longshore-tests/containerd2}")
"$binary" --version >&2 || { echo "containerd2.sh: unstable's containerd does not run here" >&2; exit 1; }
echo "$binary"
