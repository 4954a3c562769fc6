#!/usr/bin/env bash
# Build docker/compose v2 from its Go module: build.sh <file to write>
#
# For checking docker-compose.yaml where there is no Docker: its `config` needs no engine.
set -euo pipefail

target=$1
cd "$(dirname "$0")"

export GOFLAGS=-mod=readonly
# Nothing is to be downloaded but modules.
export GOTOOLCHAIN=local
export CGO_ENABLED=0

module=github.com/docker/compose/v2
version=$(go list -m -f '{{.Version}}' "$module")
mkdir -p "$(dirname "$target")"
go build -trimpath -ldflags "-s -w -X $module/internal.Version=$version" \
    -o "$target.partial" "$module/cmd"
# Only a finished build carries the name that the next run looks for.
mv "$target.partial" "$target"
