#!/usr/bin/env bash
# Builds docker compose, for the tests alone, into bin/cli-plugins, unless it is there. Debian has no compose of the second
# generation, and "go install" refuses a module that replaces others: so it is built in a copy of its own source. That takes
# some minutes the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v2.40.3
out=$PWD/bin/cli-plugins/docker-compose
[ "$("$out" version --short 2>/dev/null)" = "${version#v}" ] && exit 0

echo "building docker compose $version"
src=$(mktemp -d)
trap 'rm -rf "$src"' EXIT
module=$(cd "$src" && go mod download -json "github.com/docker/compose/v2@$version" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
cp -r "$module/." "$src"
chmod -R u+w "$src"
mkdir -p "$(dirname "$out")"
cd "$src"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$version" -o "$out.new" ./cmd
mv "$out.new" "$out"
