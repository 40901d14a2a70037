#!/usr/bin/env bash
# Prepares the checkout for some suites and runs them.
#
#   scripts/test.sh <goal of setup.sh> [arguments of test/run.ts]
#
# The last line is always 'N passed, N failed', also when the preparation fails: that is one failure.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! bash scripts/setup.sh "$1"; then
  echo 'The checkout could not be prepared, so no test ran; the reason is above.'
  echo '0 passed, 1 failed'
  exit 1
fi
shift
exec node --import tsx test/run.ts "$@"
