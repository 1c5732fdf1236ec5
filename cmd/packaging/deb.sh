#!/usr/bin/env bash
# Makes bin/minictl_VERSION_ARCH.deb of what "make install" installs. Needs dpkg-deb and nothing else.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The same sources make the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
here=cmd/packaging
version=$(bin/minictl --version | awk '{print $3}')
arch=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"

make --no-print-directory -s install PREFIX=/usr DESTDIR="$stage" ZSHDIR=/usr/share/zsh/vendor-completions
find "$stage/usr/share/man" -type f -exec gzip -9n {} +
doc=$stage/usr/share/doc/minictl
install -d "$doc" "$stage/DEBIAN"
install -m 644 README.md ARCHITECTURE.md "$doc"
printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: The minictl authors\nLicense: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n' >"$doc/copyright"
install -D -m 644 $here/daemon.json "$stage/etc/minictl/daemon.json"
echo /etc/minictl/daemon.json >"$stage/DEBIAN/conffiles"
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$(du -sk "$stage" | cut -f1)/" $here/debian/control >"$stage/DEBIAN/control"
install -m 755 $here/debian/{postinst,prerm,postrm} "$stage/DEBIAN"
(cd "$stage" && find usr etc -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$stage/DEBIAN/md5sums"
dpkg-deb --root-owner-group -Zgzip --build "$stage" "bin/minictl_${version}_$arch.deb" >/dev/null
echo "bin/minictl_${version}_$arch.deb"
