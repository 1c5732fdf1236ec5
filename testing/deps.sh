#!/usr/bin/env bash
# Installs what is missing, and only that: run it as often as you like. For the build, the demo and the figures:
#   runc            what minictl itself needs at run time
#   busybox-static  the images are made of it
#   xz-utils        reads archives compressed with it
#   nftables iproute2 conntrack   to look at what the kernel lists
# With the word test also clients and servers that nobody here wrote, which the tests drive:
#   docker          the stock CLI, unpacked beside the build: no daemon is installed or started
#   python3-docker  Docker's SDK for Python
#   sshd            OpenSSH's server, unpacked: a test starts it in a host of its own
#   etcd, zookeeper the servers of external cluster stores, unpacked likewise: tests start and end them by themselves
#   containernetworking-plugins   CNI's reference plugins, below /usr/lib/cni, with iptables
#   mkfs.ext4       for disks that fail
#   java            ZooKeeper runs on it (the headless one; the longest of all if it is not there, 60 MB)
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing+=("$2"); }
need runc runc
need nft nftables
need ip iproute2
need conntrack conntrack
need xz xz-utils
[ -x /bin/busybox ] && file -L /bin/busybox 2>/dev/null | grep -q 'statically' || dpkg -s busybox-static >/dev/null 2>&1 || missing+=(busybox-static)
if [ "${1:-}" = test ]; then
  /usr/bin/python3 -c 'import docker' 2>/dev/null || missing+=(python3-docker)
  need java default-jre-headless
  need ssh openssh-client
  need mkfs.ext4 e2fsprogs
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
fi

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

[ "${1:-}" = test ] || exit 0

if ! command -v docker >/dev/null 2>&1 && [ ! -x bin/docker ]; then
  echo "unpacking the docker CLI"
  update
  tmp=$(mktemp -d)
  (cd "$tmp" && apt download docker.io >/dev/null && dpkg-deb -x docker.io_*.deb .)
  mkdir -p bin && cp "$tmp/usr/bin/docker" bin/docker
  rm -rf "$tmp"
fi

# unpack PACKAGE... puts their files below $tmp.
unpack() {
  update
  tmp=$(mktemp -d)
  (cd "$tmp" && apt -o APT::Sandbox::User=root download "$@" >/dev/null && for deb in *.deb; do dpkg-deb -x "$deb" .; done)
}
if [ ! -x bin/etcd ]; then
  echo "unpacking etcd"
  unpack etcd-server
  mkdir -p bin && cp "$tmp/usr/bin/etcd" bin/etcd
  rm -rf "$tmp"
fi
if [ ! -e bin/zookeeper/zookeeper.jar ]; then
  echo "unpacking ZooKeeper"
  # Of what Debian's package asks for, a server without web page and TLS loads these.
  unpack libzookeeper-java libslf4j-java libdropwizard-metrics-java libsnappy-java
  mkdir -p bin/zookeeper
  for jar in zookeeper-jute slf4j-api slf4j-nop metrics-core snappy-java zookeeper; do
    cp -L "$tmp/usr/share/java/$jar.jar" bin/zookeeper/
  done
  rm -rf "$tmp"
fi
if [ ! -x bin/sshd/sshd ]; then
  echo "unpacking sshd"
  unpack openssh-server $(apt-cache show libwrap0 >/dev/null 2>&1 && echo libwrap0)
  mkdir -p bin/sshd
  cp "$tmp"/usr/sbin/sshd bin/sshd/
  for part in sshd-session sshd-auth; do # since OpenSSH 9.8
    [ ! -e "$tmp/usr/lib/openssh/$part" ] || cp "$tmp/usr/lib/openssh/$part" bin/sshd/
  done
  find "$tmp" -name 'libwrap.so.0' -exec cp -L {} bin/sshd/ \;
  rm -rf "$tmp"
fi
