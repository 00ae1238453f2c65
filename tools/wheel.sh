#!/usr/bin/env bash
# Builds dist/headrace-*.whl from this checkout and proves that it holds what it must and nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="$PWD/.venv/bin/python"
PIP=("$PYTHON" -m pip --quiet --disable-pip-version-check)

export PATH="$PWD/.venv/bin:$PATH"
rm -rf build/lib.* build/bdist.* dist # files of modules that are gone would be packed again
"${PIP[@]}" wheel --no-index --no-deps --no-build-isolation --wheel-dir dist .
wheel=(dist/headrace-*.whl)

listing="$("$PYTHON" -m zipfile -l "${wheel[0]}" | awk 'NR > 1 { print $1 }')"
if grep -E '^(tests|loadtest|build)/|\.(c|pyx)$' <<<"$listing"; then
  echo "wheel: the files above do not belong into ${wheel[0]}" >&2
  exit 1
fi

# Installed apart from the checkout, every module must import and every core must be compiled.
installed="$(mktemp -d)"
trap 'rm -rf "$installed"' EXIT
"${PIP[@]}" install --no-index --no-deps --target "$installed" "${wheel[0]}"
(cd "$installed" && "$PYTHON" - "$installed" <<'CHECK'
import importlib
import pathlib
import sys

root = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(root))
files = [path for kind in ("*.py", "*.so") for path in root.rglob(kind) if path.name != "__main__.py"]
files = [path for path in files if path.parent != root and path.parent.name != "versions" and path.name != "env.py"]
EXTRAS = {"pyspark"}  # of optional extras, which this environment may lack
skipped = 0
for path in sorted(files):
    name = ".".join((*path.relative_to(root).parent.parts, path.name.split(".")[0])).removesuffix(".__init__")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name not in EXTRAS:
            raise
        skipped += 1
        continue
    assert str(module.__file__).startswith(str(root)), f"{name} came from {module.__file__}"
print(f"wheel: {len(files) - skipped} modules import from it, {skipped} want an extra, {sum(path.suffix == '.so' for path in files)} of them compiled")
CHECK
)
echo "wheel: ${wheel[0]}"
