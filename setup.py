"""Compiles the Cython cores; everything else about the distribution stands in pyproject.toml."""

import os
import platform
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CHECKED = os.environ.get("HEADRACE_CHECKED") == "1"  # bounds checks on, as the tests build it
SANITIZE = os.environ.get("HEADRACE_SANITIZE", "")  # e.g. "address,undefined"

flags = ["-O2" if not SANITIZE else "-O1", "-std=gnu11", "-ffp-contract=off", "-fno-strict-aliasing", "-pthread"]
flags += ["-Wno-unreachable-code", "-Wno-unused-function"]
if platform.machine() in ("x86_64", "AMD64"):
    flags += ["-mtune=generic"]
if SANITIZE:
    flags += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"]
links = ["-pthread"] + ([f"-fsanitize={SANITIZE}"] if SANITIZE else [])

extensions = [
    Extension(
        f"core_ext.{source.stem}",
        [str(source)],
        include_dirs=["core_ext/native"],
        depends=[str(header) for header in sorted(Path("core_ext/native").glob("*.h"))],
        extra_compile_args=flags,
        extra_link_args=links,
    )
    for source in sorted(Path("core_ext").glob("*.pyx"))
]
directives = {"language_level": 3, "boundscheck": CHECKED, "wraparound": False, "initializedcheck": CHECKED}
directives |= {"cdivision": True, "embedsignature": False, "binding": True}
setup(ext_modules=cythonize(extensions, compiler_directives=directives, nthreads=0) if extensions else [])
