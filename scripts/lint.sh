#!/usr/bin/env bash
# Runs every linter, each counted as one test, and goes on after a failure so that one run shows all:
#
#   biome         TypeScript and JSON: rules and formatting (npx biome check --write mends most)
#   clang-format  C++ formatting (clang-format -i mends it); csrc/vendor is left as its authors wrote it
#   tsc           types of lib, test and bench
#   links         relative links in Markdown: the files exist, and the headings named after a '#'
#
# The last line is 'N passed, N failed'; the exit status is 1 if any failed. Tools come from setup.sh.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

passed=0 failed=0

# Runs one linter. Its output is shown only when it fails.
linter() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1 </dev/null); then
    printf 'lint: %-12s ok\n' "$name"
    passed=$((passed + 1))
  else
    printf '%s\nlint: %-12s FAILED (%s)\n' "$output" "$name" "$*" | cut -c1-2000
    failed=$((failed + 1))
  fi
}

# Files with one of the given endings in the given folders that exist, without generated and foreign ones.
files() {
  local folders=() ending expression=()
  while [[ $1 != -- ]]; do
    [[ -e $1 ]] && folders+=("$1")
    shift
  done
  shift
  for ending; do expression+=(${expression[0]:+-o} -name "*.$ending"); done
  find "${folders[@]}" \( -name node_modules -o -name .git -o -path csrc/vendor -o -path ./csrc/vendor \
    -o -path ./build -o -path ./dist -o -path ./prebuilds \) -prune \
    -o -type f \( "${expression[@]}" \) -print0 | sort -z
}

clang_format() {
  files csrc test/native test/fuzz test/sim/native bench -- h cc | xargs -0 -r clang-format --dry-run -Werror
}

links() {
  local list
  mapfile -d '' -t list < <(files . -- md)
  ((${#list[@]} == 0)) || node_modules/.bin/remark --frail --quiet --no-stdout --no-color "${list[@]}"
}

linter biome node_modules/.bin/biome check --error-on-warnings --colors=off --max-diagnostics=100
linter clang-format clang_format
linter tsc node_modules/.bin/tsc --noEmit --pretty false
linter links links

printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
