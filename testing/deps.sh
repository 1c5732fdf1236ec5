#!/usr/bin/env bash
# Installs what is missing, and only that: run it as often as you like.
#   runc            what minictl itself needs at run time
#   busybox-static  the images are made of it
#   nftables iproute2 conntrack   tests compare with what the kernel lists
#   python3-docker  Docker's SDK for Python, a client that the tests drive
#   docker          the stock CLI, unpacked beside the build: no daemon is installed or started
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing+=("$2"); }
need runc runc
need nft nftables
need ip iproute2
need conntrack conntrack
/usr/bin/python3 -c 'import docker' 2>/dev/null || missing+=(python3-docker)
[ -x /bin/busybox ] && file -L /bin/busybox 2>/dev/null | grep -q 'statically' || dpkg -s busybox-static >/dev/null 2>&1 || missing+=(busybox-static)

apt() {
  [ "$(id -u)" = 0 ] || { echo "missing: $* - run 'sudo make deps'" >&2; exit 1; }
  DEBIAN_FRONTEND=noninteractive apt-get -qq "$@"
}
updated=
update() { [ -n "$updated" ] || apt update; updated=1; }

if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  update
  apt install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v docker >/dev/null 2>&1 && [ ! -x bin/docker ]; then
  echo "unpacking the docker CLI"
  update
  tmp=$(mktemp -d)
  (cd "$tmp" && apt download docker.io >/dev/null && dpkg-deb -x docker.io_*.deb .)
  mkdir -p bin && cp "$tmp/usr/bin/docker" bin/docker
  rm -rf "$tmp"
fi
