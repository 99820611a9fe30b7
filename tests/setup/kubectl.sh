#!/bin/sh
# Unpacks Debian unstable's kubectl and prints the path of its binary: kubectl.sh [DIRECTORY]. Nothing is
# installed; the machine's own may be of any age.
set -eu
binary=$("$(dirname "$0")/unstable.sh" kubectl usr/bin/kubectl "${1:-/var/cache/longshore-tests/kubectl}")
"$binary" version --client >&2 || { echo "kubectl.sh: unstable's kubectl does not run here" >&2; exit 1; }
echo "$binary"
