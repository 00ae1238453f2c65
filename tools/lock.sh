#!/usr/bin/env bash
# Pins the dependencies of pyproject.toml anew, with hashes and without naming a package index.
# Give `--upgrade` to take newer versions; without it only what pyproject.toml asks for changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV_VERSION=0.13.9
uv="$(command -v uv || true)"
if [ -z "$uv" ]; then
  uv=.venvs/lock/bin/uv
  if [ ! -x "$uv" ]; then
    python3 -m venv .venvs/lock
    .venvs/lock/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
  fi
fi

compile() { # NAME ARGUMENT... : requirements/NAME.txt
  local name="$1"; shift
  "$uv" pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 \
    "$@" pyproject.toml -o "requirements/$name.txt"
  printf 'lock: requirements/%s.txt, %s packages\n' "$name" "$(grep -c == "requirements/$name.txt")"
}

# dev holds all but torch, gigabytes that one slow test installs for itself; the others are cut from it, so that all four
# agree on every version.
compile dev --extra pandas --extra skew --extra sql --extra spark --extra demo --extra loadtest --extra build --extra dev "$@"
compile runtime -c requirements/dev.txt
compile build -c requirements/dev.txt --extra build
compile demo -c requirements/dev.txt --extra build --extra demo
