#!/usr/bin/env bash
# Builds the binaries that are published, into prebuilds/<platform>-<arch>, with prebuildify.
#
# node-gyp empties build/ before it starts, and the development build lives there: so it works on a
# copy of what the package ships.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD

bash scripts/setup.sh prebuilds

# Node's headers from the system's package save a download and are the running Node's own.
if [[ -d /usr/include/node ]]; then export npm_config_nodedir=/usr; fi

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r package.json binding.gyp csrc "$copy"
ln -s "$top/node_modules" "$copy/node_modules"

(cd "$copy" && JOBS=$(nproc) node_modules/.bin/prebuildify --napi --strip --out "$top")
ls -l prebuilds/*
