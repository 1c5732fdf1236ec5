#!/usr/bin/env bash
# Unpacks Debian's Docker Engine, and what it calls, below bin/peer for `make bench`. Nothing is installed: an installed
# engine would start.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=bin/peer
[ ! -x $to/bin/iptables ] || exit 0

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp" # apt downloads as a user of its own
libs=(libdevmapper1.02.1 libip4tc2 libip6tc2 libnetfilter-conntrack3 libnfnetlink0 libnftnl11 libxtables12)
fetch() { (cd "$tmp" && apt-get -qq download docker.io containerd tini iptables "${libs[@]}" 2>"$tmp/why"); }
if ! fetch && ! { apt-get -qq update && fetch; }; then
  cat "$tmp/why" >&2
  echo "no Docker Engine to compare with: the figures will be minictl's alone" >&2
  exit 0
fi
mkdir -p $to/bin
for deb in "$tmp"/*.deb; do dpkg-deb -x "$deb" $to; done
# Which of its two iptables a machine uses is a choice that Debian makes when the package is installed.
for name in ip6tables iptables; do ln -sfn ../usr/sbin/xtables-nft-multi $to/bin/$name; done
