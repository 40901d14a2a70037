#!/usr/bin/env bash
# Builds everything native under one sanitizer and runs the suites with it: C++ and TypeScript unit
# tests, some seeds of the simulator, and the end-to-end tests over NBD, whose daemons load the add-on
# under the sanitizer.
#
#   scripts/sanitize.sh address|undefined|thread [arguments of test/run.ts]
#
# A report in any process of ours is a failure (test/tools/sanitizer.ts). The last line is always
# 'N passed, N failed'.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sanitizer=${1:-}
case $sanitizer in
  address) goal=asan ;;
  undefined) goal=ubsan ;;
  thread) goal=tsan ;;
  *)
    echo "scripts/sanitize.sh: unknown sanitizer '$sanitizer': expected address, undefined or thread" >&2
    exit 2
    ;;
esac
shift
exec bash scripts/test.sh "$goal" --sanitizer="$sanitizer" "$@"
