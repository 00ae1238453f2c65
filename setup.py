"""Compiles the Cython cores and generates the stubs; the rest of the distribution stands in pyproject.toml."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

CHECKED = os.environ.get("HEADRACE_CHECKED") == "1"  # bounds checks on: the build that the unit tests run
SANITIZE = os.environ.get("HEADRACE_SANITIZE", "")  # e.g. "address,undefined"
MODE = "sanitize" if SANITIZE else "checked" if CHECKED else "optimised"  # each mode keeps its own C files
flags = ["-O1" if SANITIZE else "-O2", "-std=gnu11", "-ffp-contract=off", "-fno-strict-aliasing", "-pthread"]
tuned = ["-mtune=generic"] if platform.machine() in ("x86_64", "AMD64") else []
links = ["-pthread", *([f"-fsanitize={SANITIZE}"] if SANITIZE else [])]
flags += ["-Wno-unreachable-code", "-Wno-unused-function", *tuned]
flags += [*links[1:], "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"] if SANITIZE else []


class BuildWithStubs(build_py):  # so that a wheel built from a bare clone is whole
    def run(self) -> None:
        subprocess.run([sys.executable, "-m", "protos.generate"], check=True)
        super().run()


inputs = ["setup.py", *map(str, sorted(Path("core_ext").rglob("*.h")))]
options = {"include_dirs": ["core_ext/native"], "extra_compile_args": flags, "depends": inputs}
pkg = [shutil.which("pkg-config") or "false", "--libs", "libnghttp2", "libssl", "libcrypto"]  # else no native loop
found = subprocess.run(pkg, capture_output=True, text=True, check=False).stdout.split()
sources = [] if os.environ.get("HEADRACE_CORES") == "skip" else sorted(Path("core_ext").glob("*.pyx"))
parts = {s: links + found * (s.stem == "native_loop") for s in sources if found or s.stem != "native_loop"}
extensions = [Extension(f"core_ext.{s.stem}", [str(s)], extra_link_args=parts[s], **options) for s in parts]
directives = {"language_level": 3, "boundscheck": CHECKED, "wraparound": False, "initializedcheck": CHECKED}
directives |= {"cdivision": True, "embedsignature": False, "binding": True}
modules = cythonize(extensions, build_dir=f"build/cython/{MODE}", compiler_directives=directives) if extensions else []
setup(ext_modules=modules, cmdclass={"build_py": BuildWithStubs})
