#!/usr/bin/env bash
# Brings this checkout to where one kind of work can be done, and does nothing, quickly, when it is
# there already. Needs only bash, coreutils, util-linux, Node and npm.
#
#   scripts/setup.sh <goal>
#
#   goal      Debian packages       node_modules  add-on  test programs  dist  under a sanitizer
#   ts        -                     yes           -       -              yes   -
#   sim       build                 yes           -       simulator      -     -
#   native    build                 yes           yes     -              -     -
#   build     build                 yes           yes     -              yes   -
#   demo      build fio             yes           yes     -              yes   -
#   lint      lint                  yes           -       -              -     -
#   unit      build unit            yes           yes     yes            yes   -
#   fuzz      build fuzz            yes           -       fuzz targets   -     -
#   e2e       build fio e2e         yes           yes     -              yes   -
#   vm        build unit fio vm     yes           yes     yes            yes   -
#   bench     build fio e2e bench   yes           yes     tidemark-bench, yes  -
#             micro                                       tidemark-scale
#   bench-vm  build fio e2e vm      yes           yes     tidemark-ublk-loop yes -
#   micro     build micro           yes           -       tidemark-bench -     -
#   scale     build                 yes           yes     tidemark-scale yes   -
#   prebuilds build gyp             yes           -       -              -     -
#   memory    build unit            yes           -       -              -     C++ unit tests
#   asan      build unit fio e2e    yes           -       -              yes   all
#   ubsan     the same              yes           -       -              yes   all
#   tsan      the same              yes           -       -              yes   all
#   test      all of them           yes           yes     yes            yes   C++ unit tests
#   all       the same as test
#
# The test programs are tidemark-unit and tidemark-ublk-memory, in build/cmake, and the simulator's
# add-on, build/simulator/tidemark_sim.node; goals without C++ unit tests do not need that one. Under a
# sanitizer the C++ unit tests alone are in build/address-undefined; all, with the add-on, in
# build/address, build/undefined or build/thread. The fuzz targets, for the goals fuzz, test and all, are in
# build/fuzz; what the benchmarks alone need (tidemark-ublk-loop, tidemark-bench, tidemark-scale) in
# build/bench.
#
# Steps, each skipped when the stamp of its inputs (a content hash, under build/stamps) is unchanged:
# packages by apt-get (as root; otherwise what is missing is named and the script ends), npm ci,
# cmake-js, tsc. Progress goes to standard error; a step's output to build/logs, shown if it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The packages of one group, as package=probe; the probe is a command, or a path that must exist.
packages_of() {
  case $1 in
    build) echo cmake=cmake make=make g++=g++ ;;
    gyp) echo python3=python3 ;;
    lint) echo clang-format=clang-format ;;
    unit) echo g++=g++ doctest-dev=/usr/include/doctest/doctest.h ;;
    fuzz) echo clang=clang++ libclang-rt-dev=/var/lib/dpkg/info/libclang-rt-dev.list ;;
    fio) echo fio=fio ;;
    micro) echo libbenchmark-dev=/usr/include/benchmark/benchmark.h ;;
    e2e) echo libnbd-bin=nbdinfo nbdkit=nbdkit qemu-utils=qemu-img e2fsprogs=/sbin/mkfs.ext4 ;;
    bench) echo qemu-system-common=qemu-storage-daemon ;;
    vm) echo qemu-system-x86=qemu-system-x86_64 busybox-static=/var/lib/dpkg/info/busybox-static.list \
      cpio=cpio dmsetup=/sbin/dmsetup e2fsprogs=/sbin/mkfs.ext4 iproute2=/sbin/ip kmod=/sbin/depmod xz-utils=xz ;;
  esac
}

goal=${1:-}
sim=no
sanitizers=
fuzz=no
bench_programs=
case $goal in
  ts) groups='' native=no unit=no ts=yes ;;
  sim) groups='build' native=no unit=no ts=no sim=yes ;;
  native) groups='build' native=yes unit=no ts=no ;;
  build) groups='build' native=yes unit=no ts=yes ;;
  demo) groups='build fio' native=yes unit=no ts=yes ;;
  lint) groups='lint' native=no unit=no ts=no ;;
  unit) groups='build unit' native=yes unit=yes ts=yes sim=yes ;;
  fuzz) groups='build fuzz' native=no unit=no fuzz=yes ts=no ;;
  e2e) groups='build fio e2e' native=yes unit=no ts=yes ;;
  vm) groups='build unit fio vm' native=yes unit=yes ts=yes ;;
  bench)
    groups='build fio e2e bench micro' native=yes unit=no ts=yes
    bench_programs='tidemark-bench tidemark-scale'
    ;;
  bench-vm) groups='build fio e2e vm' native=yes unit=no ts=yes bench_programs=tidemark-ublk-loop ;;
  micro) groups='build micro' native=no unit=no ts=no bench_programs=tidemark-bench ;;
  scale) groups='build' native=yes unit=no ts=yes bench_programs=tidemark-scale ;;
  prebuilds) groups='build gyp' native=no unit=no ts=no ;;
  memory) groups='build unit' native=no unit=no ts=no sanitizers=address,undefined ;;
  asan) groups='build unit fio e2e' native=no unit=no ts=yes sanitizers=address ;;
  ubsan) groups='build unit fio e2e' native=no unit=no ts=yes sanitizers=undefined ;;
  tsan) groups='build unit fio e2e' native=no unit=no ts=yes sanitizers=thread ;;
  test | all)
    groups='build lint unit fuzz fio e2e vm' native=yes unit=yes fuzz=yes ts=yes sim=yes
    sanitizers=address,undefined
    ;;
  *) die "unknown goal '$goal': expected ts, sim, native, build, demo, lint, unit, fuzz, e2e, vm, bench, bench-vm, micro, scale, prebuilds, memory, asan, ubsan, tsan, test or all" ;;
esac

mkdir -p build/stamps build/logs

# One setup at a time: two of them would run npm ci or the linker over each other's files.
exec 9>build/setup.lock
if ! flock -n 9; then
  say 'another setup is running in this checkout: waiting for it'
  flock 9
fi

# Runs a command silently; shows its log when it fails.
quietly() {
  local name=$1 log=build/logs/$1.log
  shift
  if ! "$@" >"$log" 2>&1 </dev/null 9>&-; then
    tail -n 200 "$log" >&2
    die "$name failed (the whole log: $log)"
  fi
}

hash_of() { find "$@" -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1; }
stamp_is() { [[ -f build/stamps/$1 && $(<"build/stamps/$1") == "$2" ]]; }
stamp() { printf '%s\n' "$2" >"build/stamps/$1"; }

# --- packages -------------------------------------------------------------------------------------

install_packages() {
  apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

packages() {
  local group entry probe missing=()
  for group in $groups; do
    for entry in $(packages_of "$group"); do
      probe=${entry#*=}
      if [[ $probe == /* ]]; then
        [[ -e $probe ]] && continue
      else
        command -v "$probe" >/dev/null && continue
      fi
      [[ " ${missing[*]} " == *" ${entry%%=*} "* ]] || missing+=("${entry%%=*}")
    done
  done
  ((${#missing[@]})) || return 0
  local hint="apt-get install --no-install-recommends ${missing[*]}"
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (Debian's names); there is no apt-get here, install them by hand"
  ((EUID == 0)) || die "missing packages: ${missing[*]}. As root: $hint"
  export DEBIAN_FRONTEND=noninteractive
  say "installing Debian packages: ${missing[*]}"
  install_packages "${missing[@]}" >build/logs/packages.log 2>&1 </dev/null 9>&- && return 0
  # There are no package lists yet, or they name versions that the mirror has dropped.
  say 'that failed: updating the package lists, then trying again'
  quietly apt-get-update apt-get update
  quietly packages install_packages "${missing[@]}"
}

# --- npm, the add-on, the TypeScript ---------------------------------------------------------------

modules() {
  local want
  want=$(sha256sum package-lock.json | cut -d' ' -f1)
  [[ -f node_modules/.tidemark-lock && $(<node_modules/.tidemark-lock) == "$want" ]] && return 0
  say 'installing node_modules (npm ci)'
  # No install scripts: ours would build the add-on a second time, and no dependency needs its own.
  quietly npm-ci npm ci --ignore-scripts --no-audit --no-fund
  printf '%s\n' "$want" >node_modules/.tidemark-lock
}

native() {
  local want targets=tidemark inputs=(csrc CMakeLists.txt package-lock.json) args=() name=native
  if [[ $unit == yes ]]; then
    name=native-unit inputs+=(test/native test/vm/native) args=(--CDTIDEMARK_UNIT_TESTS=ON)
    targets='tidemark and the test programs'
  fi
  want=$(hash_of "${inputs[@]}")
  if [[ -f build/Release/tidemark.node ]] && stamp_is $name "$want"; then
    [[ $unit == no || (-x build/cmake/tidemark-unit && -x build/cmake/tidemark-ublk-memory) ]] && return 0
  fi
  say "building $targets (cmake-js)"
  # CMake refuses a cache that was made for another folder: the checkout was moved or copied.
  grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" build/cmake/CMakeCache.txt || rm -rf build/cmake
  [[ $unit == yes ]] || args+=(--target tidemark)
  # cmake-js leaves an existing configuration alone, so options are given to a configure of their own.
  quietly $name-configure node_modules/.bin/cmake-js configure -O build/cmake -m "${args[@]}"
  quietly $name node_modules/.bin/cmake-js build -O build/cmake -m -p "$(nproc)" "${args[@]}"
  stamp $name "$want"
  # What the unit build made contains the add-on too.
  [[ $unit == no ]] || stamp native "$(hash_of csrc CMakeLists.txt package-lock.json)"
}

simulator() {
  local want
  want=$(hash_of csrc lib test/sim CMakeLists.txt package-lock.json)
  [[ -f build/simulator/tidemark_sim.node ]] && stamp_is sim "$want" && return 0
  say 'building the simulator (test/sim/build.ts, cmake-js)'
  local folder=build/cmake-sim
  grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" $folder/CMakeCache.txt || rm -rf $folder
  quietly sim-sources node --import tsx test/sim/build.ts
  quietly sim-configure node_modules/.bin/cmake-js configure -O $folder -m --CDTIDEMARK_SIM=ON \
    --CDTIDEMARK_SIM_CORE="$PWD/build/sim/csrc"
  quietly sim node_modules/.bin/cmake-js build -O $folder -m -p "$(nproc)" --target tidemark_sim
  stamp sim "$want"
}

# Under one sanitizer everything, the simulator too; under two at once the C++ unit tests, for 'npm test'.
sanitized() {
  local folder=build/${sanitizers/,/-} name=${sanitizers/,/-} want inputs=(csrc CMakeLists.txt test/native)
  local tool configure build
  if [[ $sanitizers == *,* ]]; then
    configure=(cmake -S . -B "$folder" -DTIDEMARK_SANITIZE="$sanitizers" -DTIDEMARK_UNIT_TESTS=ON)
    build=(cmake --build "$folder" --target tidemark-unit --parallel "$(nproc)")
  else
    inputs+=(lib test/sim package-lock.json test/vm/native)
    tool=(node_modules/.bin/cmake-js -O "$folder" -m)
    configure=("${tool[@]}" configure --CDTIDEMARK_SANITIZE="$sanitizers" --CDTIDEMARK_UNIT_TESTS=ON
      --CDTIDEMARK_SIM=ON --CDTIDEMARK_SIM_CORE="$PWD/build/sim/csrc")
    build=("${tool[@]}" build -p "$(nproc)")
  fi
  want=$(hash_of "${inputs[@]}")
  [[ -x $folder/tidemark-unit ]] && stamp_is "$name" "$want" && return 0
  say "building under the sanitizers: $sanitizers"
  grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$folder/CMakeCache.txt" || rm -rf "$folder"
  [[ $sanitizers == *,* ]] || quietly sim-sources node --import tsx test/sim/build.ts
  quietly "$name-configure" "${configure[@]}"
  quietly "$name" "${build[@]}"
  stamp "$name" "$want"
}

fuzzers() {
  local want
  want=$(hash_of csrc CMakeLists.txt test/fuzz test/native)
  stamp_is fuzz "$want" && return 0
  say 'building the fuzz targets (clang)'
  grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" build/fuzz/CMakeCache.txt || rm -rf build/fuzz
  CXX=clang++ quietly fuzz-configure cmake -S . -B build/fuzz -DTIDEMARK_FUZZ=ON
  quietly fuzz cmake --build build/fuzz --parallel "$(nproc)"
  stamp fuzz "$want"
}

# One of the benchmarks' own programs, of bench/native.
bench_program() {
  local program=$1 want
  want=$(hash_of csrc bench/native CMakeLists.txt)
  [[ -x build/bench/$program ]] && stamp_is "$program" "$want" && return 0
  say "building $program"
  grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" build/bench/CMakeCache.txt || rm -rf build/bench
  quietly bench-configure cmake -S . -B build/bench -DTIDEMARK_BENCH=ON
  quietly bench cmake --build build/bench --target "$program" --parallel "$(nproc)"
  stamp "$program" "$want"
}

typescript() {
  local want
  want=$(hash_of lib tsconfig.json tsconfig.build.json package-lock.json)
  [[ -d dist ]] && stamp_is ts "$want" && return 0
  say 'compiling lib to dist (tsc)'
  quietly tsc node_modules/.bin/tsc -p tsconfig.build.json
  # Nothing may be imported, or published, whose source is gone.
  local file source
  while IFS= read -r -d '' file; do
    source=lib/${file#dist/}
    source=${source%.js}
    [[ -f $source.ts ]] || rm -f "$file" "$file.map" "${file%.js}.d.ts"
  done < <(find dist -name '*.js' -print0)
  [[ ! -f dist/cli/main.js ]] || chmod +x dist/cli/main.js
  stamp ts "$want"
}

packages
modules
[[ $native == no ]] || native
[[ $sim == no ]] || simulator
[[ -z $sanitizers ]] || sanitized
[[ $fuzz == no ]] || fuzzers
for program in $bench_programs; do bench_program "$program"; done
[[ $ts == no ]] || typescript
