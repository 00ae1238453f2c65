"""Headers of the cores: none needs one that needs it, and those of the loop and of expressions stand alone."""

import re
import shutil
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[3] / "core_ext" / "native"
COMPILE_S = 120.0
INCLUDED = re.compile(r'^#include "(\w+\.h)"', re.M)
PROMISED = re.compile(r"^static inline [^{}]*\);$", re.M)  # a function that a later header defines
LIBRARIES = ("nghttp2", "openssl")
FAMILIES = ("hr_h2", "hr_tls", "hr_expression", "hr_answer", "hr_gather", "hr_resolve")


def headers() -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(NATIVE.glob("*.h"))}


def test_no_header_includes_itself_by_others() -> None:
    list(TopologicalSorter({name: INCLUDED.findall(text) for name, text in headers().items()}).static_order())


def test_no_header_of_the_loop_or_of_expressions_calls_what_a_later_one_defines() -> None:
    promised = {name: PROMISED.findall(text) for name, text in headers().items() if name.startswith(FAMILIES)}
    assert {name: found for name, found in promised.items() if found} == {}


def test_headers_of_the_loop_and_of_expressions_compile_alone(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None or not all(Path("/usr/include", part).exists() for part in LIBRARIES):
        pytest.skip("there is no gcc, or no libnghttp2 and libssl")
    sources = []
    for name in headers():
        if name.startswith(FAMILIES):
            source = tmp_path / f"{name}.c"
            source.write_text(f'#include "{name}"\n')
            sources.append(str(source))
    words = [compiler, "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
    words += ["-fsyntax-only", f"-I{NATIVE}", *sources]
    told = subprocess.run(words, capture_output=True, text=True, timeout=COMPILE_S, check=False)
    assert told.returncode == 0, told.stderr
