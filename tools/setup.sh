#!/usr/bin/env bash
# Brings a checkout to what a verb of the Makefile needs, and does only what is not done yet.
#
#   tools/setup.sh demo              environment of the demo, stubs, optimised cores
#   tools/setup.sh stubs             the same environment and the stubs alone
#   tools/setup.sh check             environment of the developer, stubs, optimised and checked cores
#   tools/setup.sh test              the same, and the programs, jars and npm packages that the tests start
#   tools/setup.sh spark             the same as check, Java and the jars of Spark
#   tools/setup.sh sanitize          the same as check, and cores built with ASan and UBSan
#   tools/setup.sh program NAME...   programs alone: redis-server, h2load, nghttpd, valgrind, perf, bazel, java
#
# Cores are compiled per mode into build/<mode>: `optimised` is copied beside its sources and is what every program runs;
# `checked` (bounds checks on) and `sanitize` are put in front of it by tests/conftest.py (--core-build).
# Every finished step leaves a digest of its inputs in .venv/.headrace or build/.stamps; an equal digest skips the step.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"
STAMPS="$ROOT/build/.stamps"
APT_PREFERENCES=(-y -qq --no-install-recommends)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# digest FILE... : one line that changes when a named file changes, appears or goes.
digest() { { printf '%s\n' "$ROOT"; sha256sum -- "$@" 2>/dev/null || true; } | sha256sum | cut -d' ' -f1; }
done_already() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
stamp() { mkdir -p "$(dirname "$1")" && printf '%s\n' "$2" >"$1"; }

apt_install() { # WHAT PACKAGE... : as root on Debian, else one line that says what to install.
  local what="$1"; shift
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "$what missing: install $* (Debian, as root: apt-get install $*), then run this again"
  fi
  say "installing $* by apt-get"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install "${APT_PREFERENCES[@]}" "$@"; } >/dev/null ||
    die "apt-get could not install $*: install it by hand, then run this again"
}

package_of() { # the Debian package that holds a program
  case "$1" in
    redis-server | redis-benchmark) echo redis-server ;;
    h2load) echo nghttp2-client ;;
    nghttpd) echo nghttp2-server ;;
    valgrind) echo valgrind ;;
    bazel) echo bazel-bootstrap ;;
    java) echo openjdk-17-jre-headless ;;
    javac) echo openjdk-17-jdk-headless ;;
    node) echo nodejs ;;
    perf) echo linux-perf ;;
    *) echo "$1" ;;
  esac
}

programs() { # NAME... : present, or installed, or one line per missing program
  local name missing=()
  for name in "$@"; do command -v "$name" >/dev/null || missing+=("$(package_of "$name")"); done
  [ ${#missing[@]} = 0 ] || apt_install "a program of the tests is" "${missing[@]}"
}

java_is_new_enough() { # Spark 4.1 runs on Java 17 and later
  local version
  version="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)"
  [ "${version:-0}" -ge 17 ] ||
    die "java on PATH is version ${version:-unknown}, Spark needs 17 or later: install openjdk-17-jre-headless"
}

jars() { "$PYTHON" tools/jars.py "$1" || exit 1; } # SET : .cache/jars/SET, checked against its lock each time

npm_packages() { # SET FOLDER : .cache/npm/SET/node_modules, of the versions and hashes in FOLDER/package-lock.json
  local into="$ROOT/.cache/npm/$1" key
  key="$(digest "$2"/package.json "$2"/package-lock.json)"
  done_already "$into/.stamp" "$key" && return
  say "npm packages of $2 into .cache/npm/$1: download about 3 MB, disk about 13 MB"
  rm -rf "$into" && mkdir -p "$into" && cp "$2"/package.json "$2"/package-lock.json "$into"
  npm ci --prefix "$into" --ignore-scripts --no-audit --no-fund --silent >/dev/null ||
    die "npm could not install $2/package-lock.json: the npm registry must be reachable for this first set-up"
  stamp "$into/.stamp" "$key"
}

go_modules() { # FOLDER : .cache/go with the modules and hashes of FOLDER/go.sum, compiled; without Go its test is left out
  local go="$ROOT/.cache/go" key
  if ! (cd "$1" && GOTOOLCHAIN=local go list -m >/dev/null 2>&1); then
    say "no Go on PATH, or one older than $1/go.mod asks for: clients of Go are not tested"
    return
  fi
  key="$(digest "$1"/go.mod "$1"/go.sum)"
  done_already "$go/.stamp" "$key" && return
  say "Go modules of $1 into .cache/go: download about 15 MB, disk about 280 MB"
  if ! (cd "$1" && env GOTOOLCHAIN=local GOMODCACHE="$go/mod" GOCACHE="$go/build" GOFLAGS=-modcacherw \
    go build -o /dev/null .); then
    say "go could not bring or compile the modules of $1/go.sum: clients of Go are not tested"
    return
  fi
  stamp "$go/.stamp" "$key"
}

find_base_python() { # the first interpreter that may carry the environment; prefers the version of the locks
  local candidate
  while IFS= read -r candidate; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <([ -z "${HEADRACE_PYTHON:-}" ] || printf '%s\n' "$HEADRACE_PYTHON"; type -aP python3.11; type -aP python3)
  die "no Python 3.11 or newer: install python3 (Debian: apt-get install python3 python3-venv python3-dev)"
}

need_compiler() { # PYTHON : its own compiler, or any other that is here
  local own compiler
  own="$("$1" -c 'import sysconfig; print((sysconfig.get_config_var("CC") or "cc").split()[0])')"
  for compiler in "${CC:-$own}" cc gcc clang; do
    if command -v "${compiler%% *}" >/dev/null; then
      [ "$compiler" = "$own" ] || export CC="$compiler"
      break
    fi
    compiler=
  done
  [ -n "$compiler" ] || die "no C compiler: install gcc (Debian: apt-get install gcc python3-dev)"
  if ! "$1" -c 'import sys, sysconfig, os; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; then
    apt_install "Python.h is" python3-dev
  fi
}

native_libraries() { # of the native transport; without them the gRPC server listens by itself
  local missing=()
  command -v pkg-config >/dev/null || missing+=(pkg-config)
  pkg-config --exists libnghttp2 2>/dev/null || missing+=(libnghttp2-dev)
  pkg-config --exists libssl 2>/dev/null || missing+=(libssl-dev)
  [ ${#missing[@]} = 0 ] && return
  (apt_install "a library of the native transport is" "${missing[@]}") ||
    say "going on without the native transport: the feature server serves by grpcio"
}

environment() { # LOCK DOWNLOAD_MB DISK_MB : .venv with the packages of requirements/LOCK.txt
  local lock="$1" base key
  key="$(digest requirements/"$lock".txt)"
  done_already "$VENV/.headrace/$lock" "$key" && return
  base="$(find_base_python)"
  need_compiler "$base" # asked before the download, as a person without one should not wait for it
  say "packages of requirements/$lock.txt into .venv: download about $2 MB, disk about $3 MB"
  if [ -x "$PYTHON" ] && [ "$(cat "$VENV/.headrace/root" 2>/dev/null || echo "$ROOT")" != "$ROOT" ]; then
    say "the checkout has moved, so .venv is made again"
    rm -rf "$VENV"
  fi
  if ! "$PYTHON" -c 'import pip' 2>/dev/null; then
    "$base" -c 'import ensurepip, venv' 2>/dev/null || apt_install "the venv module is" python3-venv
    "$base" -m venv --clear "$VENV" || die "could not make $VENV with $base"
  fi
  stamp "$VENV/.headrace/root" "$ROOT"
  # The build tools come first, so that a package without a wheel is built by the locked setuptools as well.
  local part
  for part in build "$lock"; do
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation \
      -r requirements/"$part".txt ||
      die "pip could not install requirements/$part.txt: the package index must be reachable for this first set-up"
  done
  stamp "$VENV/.headrace/$lock" "$key"
}

stubs() {
  local key files=()
  mapfile -d '' -t files < <(find protos -name '*.proto' -print0 | sort -z)
  key="$(digest protos/generate.py "$VENV/.headrace/root" "${files[@]}")"
  if done_already "$STAMPS/stubs" "$key" && [ -f protos/common/v1/options_pb2.py ]; then return; fi
  say "stubs of ${#files[@]} contracts"
  find protos -name '*_pb2*.py*' -delete # those of a contract that is gone must go too
  "$PYTHON" -m protos.generate >/dev/null 2>"$ROOT/build/stubs.log" || { cat "$ROOT/build/stubs.log" >&2; die "protoc refused a contract"; }
  stamp "$STAMPS/stubs" "$key"
}

cores() { # MODE : build/MODE/core_ext/*.so from core_ext/*.pyx
  local mode="$1" key rules library files=()
  mapfile -d '' -t files < <(find core_ext \( -name '*.pyx' -o -name '*.pxd' -o -name '*.h' \) -print0 | sort -z)
  key="$(digest "${files[@]}" setup.py "$VENV/pyvenv.cfg")"
  if ! done_already "$STAMPS/core-$mode" "$key"; then
    need_compiler "$PYTHON"
    native_libraries
    rules="$(digest setup.py "$VENV/pyvenv.cfg")" # other flags or another interpreter: nothing of the old build may stay
    done_already "$STAMPS/rules-$mode" "$rules" || rm -rf "build/$mode" "build/cython/$mode"
    say "compiling the cores ($mode)"
    compile "$mode"
    stamp "$STAMPS/rules-$mode" "$rules"
    stamp "$STAMPS/core-$mode" "$key"
  fi
  for library in "build/$mode"/core_ext/*.so; do # a core whose source is gone must not be imported
    [ -f "core_ext/$(basename "${library%%.*}").pyx" ] || rm -f "$library"
  done
  [ "$mode" = optimised ] && copy_beside_sources
  return 0
}

compile() { # MODE
  local switches=()
  case "$1" in
    checked) switches=(HEADRACE_CHECKED=1) ;;
    sanitize) switches=(HEADRACE_CHECKED=1 HEADRACE_SANITIZE=address,undefined) ;;
  esac
  mkdir -p build
  env "${switches[@]}" "$PYTHON" setup.py -q build_ext --parallel 2 --build-lib "build/$1" --build-temp build/temp \
    >"build/core-$1.log" 2>&1 || { cat "build/core-$1.log" >&2; die "the cores did not compile; the compiler's words stand above"; }
}

copy_beside_sources() {
  local library
  for library in build/optimised/core_ext/*.so; do
    [ -e "$library" ] || continue
    # Renamed into place, as a running process may still have the old file mapped.
    cmp -s "$library" "core_ext/$(basename "$library")" || {
      cp "$library" "core_ext/.$$.so" && mv -f "core_ext/.$$.so" "core_ext/$(basename "$library")"
    }
  done
  for library in core_ext/*.so; do
    [ -e "$library" ] && [ ! -e "build/optimised/$library" ] && rm -f "$library"
  done
  return 0
}

entry_point() { # .venv/bin/headrace, which runs the checkout
  local key
  key="$(digest pyproject.toml "$VENV/.headrace/root")"
  if done_already "$VENV/.headrace/entry" "$key" && [ -x "$VENV/bin/headrace" ]; then return; fi
  say "the command .venv/bin/headrace"
  # compat: a plain path file, so that tests, tools and type checkers see the checkout as it is.
  HEADRACE_CORES=skip "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    --no-build-isolation --config-settings editable_mode=compat -e . >"build/entry.log" 2>&1 ||
    { cat build/entry.log >&2; die "pip could not install the checkout into .venv"; }
  stamp "$VENV/.headrace/entry" "$key"
}

checkout() { stubs; cores optimised; entry_point; }

main() {
  local verb="${1:-}"
  [ $# = 0 ] || shift
  mkdir -p build
  export PATH="$VENV/bin:$PATH"
  if command -v flock >/dev/null; then exec 9>build/.setup.lock && flock 9; fi # two verbs at once take turns
  case "$verb" in
    # Sizes were measured with the locks of 2026-11-24 on Debian 12, x86-64.
    demo) have_developer || environment demo 120 500; checkout ;;
    stubs) have_developer || environment demo 120 500; stubs ;;
    check) environment dev 655 1300; checkout; cores checked ;;
    test)
      programs redis-server h2load nghttpd valgrind java javac node npm; java_is_new_enough
      environment dev 655 1300; checkout; cores checked; jars spark; jars grpc; jars kafka
      npm_packages interop tests/interop/node; go_modules tests/interop/go ;;
    spark) programs java; java_is_new_enough; environment dev 655 1300; checkout; cores checked; jars spark ;;
    sanitize) environment dev 655 1300; checkout; cores sanitize ;;
    program) programs "$@" ;;
    *) die "unknown set-up \"$verb\": demo, stubs, check, test, spark, sanitize or program NAME..." ;;
  esac
}

have_developer() { done_already "$VENV/.headrace/dev" "$(digest requirements/dev.txt)"; } # holds all of the demo's

main "$@"
