#!/usr/bin/env bash
# Build influxd from its Go module: build.sh <file to write>
#
# Flux's parser is a Rust library that Go links against. The build asks pkg-config
# for it, and the project's own pkg-config compiles it on the way.
set -euo pipefail

target=$1
here=$(cd "$(dirname "$0")" && pwd)
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

export GOFLAGS=-mod=readonly
# go.mod asks for an older toolchain by name; the one that is installed is newer.
export GOTOOLCHAIN=local
GOBIN="$tools" go install github.com/influxdata/pkg-config@v0.2.14

# New lints of a newer Rust are errors in Flux's sources. RUSTFLAGS does not reach
# build scripts' dependencies; a compiler wrapper does.
cat > "$tools/rustc-wrapper" <<'WRAPPER'
#!/bin/sh
exec "$@" --cap-lints warn
WRAPPER
chmod +x "$tools/rustc-wrapper"

# Flux pins an old Rust for rustup; use the toolchain that is there.
if command -v rustup >/dev/null; then
    RUSTUP_TOOLCHAIN=$(rustup show active-toolchain | cut -d' ' -f1)
    export RUSTUP_TOOLCHAIN
fi

mkdir -p "$(dirname "$target")"
cd "$here"
PKG_CONFIG="$tools/pkg-config" RUSTC_WRAPPER="$tools/rustc-wrapper" \
    go build -tags sqlite_foreign_keys,sqlite_json -o "$target.partial" .
# Only a finished build carries the name that the next run looks for.
mv "$target.partial" "$target"
