"""Holds the written rules of the house that no linter knows: sizes, names, words, prints, environment."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = (
    *("batch", "control_plane", "core_ext", "examples", "feature_server", "headrace", "loadtest", "protos", "tests"),
    *("tools", "bazel", "docs", "vector_server", ".ci"),
)
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
TEXT_SUFFIXES = {
    ".py",
    ".pyi",
    ".pyx",
    ".pxd",
    ".h",
    ".java",
    ".js",
    ".proto",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".ini",
    ".bzl",
    ".sh",
    ".mako",
}
TEXT_NAMES = {"Makefile", "BUILD.bazel", "WORKSPACE", "MODULE.bazel", "Containerfile", "run"}

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
README_LINES_MAX = 19  # "in under 20 lines"
ROOT_README = ROOT / "README.md"  # the one that tells the whole story

PRINT_ALLOWED = ("control_plane/cli/", "loadtest/", "examples/", "tools/", "tests/", "bazel/", "protos/generate.py")
ENVIRONMENT_ALLOWED = ("control_plane/cli/", "loadtest/", "examples/", "tools/", "tests/", "setup.py")
CLASS_ENDINGS = ("Manager", "Helper", "Helpers", "Util", "Utils")

# Spelt in two halves, as this file is read by its own rule.
BANNED_WORDS = {
    "TO" + "DO": "say it in the issue tracker, or do it",
    "FIX" + "ME": "say it in the issue tracker, or do it",
    "XX" + "X": "say what is wrong",
    "/wo" + "rk/": "no path of one machine",
    "/ro" + "ot/": "no path of one machine",
    "pypi" + ".org": "no registry is named; the installer knows its own",
    "files.python" + "hosted": "no registry is named; the installer knows its own",
    "registry.npm" + "js": "no registry is named; the installer knows its own",
    "repo1.maven" + ".org": "no registry is named; the installer knows its own",
    "docker" + ".io": "no registry is named; the installer knows its own",
    "0.0" + ".0.0": "servers bind to loopback unless a person says otherwise",
}
BIND_ANYWHERE_ALLOWED = "tests/"  # the refusal of a bind beyond loopback must be tested


def text_files() -> list[Path]:
    """Every file of ours that a person reads, without generated ones."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    wanted = [path for path in found if path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES]
    return sorted(path for path in wanted if "__pycache__" not in path.parts and not GENERATED.search(path.name))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(suffixes: tuple[str, ...] = (".py", ".pyi")) -> Iterator[tuple[str, ast.Module]]:
    for path in text_files():
        if path.suffix in suffixes:
            yield name_of(path), ast.parse(path.read_text())


def functions_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every function with its lines, decorators and docstring included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield node.name, (node.end_lineno or node.lineno) - first + 1


def cython_functions_of(text: str) -> Iterator[tuple[str, int]]:
    """The same for Cython by indentation: a function ends at the next code line that is not deeper than its head."""
    head = re.compile(r"^(\s*)(?:def|cdef|cpdef)\b[^=]*?(\w+)\s*\(")
    open_functions: list[tuple[int, str, int, int]] = []  # indent, name, first line, last line of its body
    bracket_depth = 0
    for number, line in enumerate(text.splitlines(), start=1):
        code = line.split("#")[0]
        if not code.strip():
            continue
        indent = len(code) - len(code.lstrip())
        while bracket_depth == 0 and open_functions and indent <= open_functions[-1][0]:
            _, name, first, last = open_functions.pop()
            yield name, last - first + 1
        open_functions = [(depth, name, first, number) for depth, name, first, _ in open_functions]
        match = head.match(code) if bracket_depth == 0 else None
        if match and not code.lstrip().startswith(("cdef class", "cdef extern", "cdef struct")):
            open_functions.append((indent, match.group(2), number, number))
        bracket_depth = max(0, bracket_depth + sum(map(code.count, "([{")) - sum(map(code.count, ")]}")))
    for _, name, first, last in open_functions:
        yield name, last - first + 1


def test_no_file_is_longer_than_the_wall() -> None:
    code = [path for path in text_files() if path.suffix != ".md"]
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in code}
    assert {name: size for name, size in sizes.items() if size > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_the_wall() -> None:
    sizes = [(name, function, size) for name, tree in parsed() for function, size in functions_of(tree)]
    for path in text_files():
        if path.suffix in {".pyx", ".pxd"}:
            sizes += [(name_of(path), function, size) for function, size in cython_functions_of(path.read_text())]
    assert len(sizes) > 100, "the scan has lost the functions"
    assert [entry for entry in sizes if entry[2] > FUNCTION_LINES_MAX] == []


def test_no_class_is_named_for_what_it_is_not() -> None:
    names = [(name, node.name) for name, tree in parsed() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert [entry for entry in names if entry[1].endswith(CLASS_ENDINGS)] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [name for name, tree in parsed((".py",)) if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_no_line_ends_in_space_and_every_file_ends_in_one_newline() -> None:
    untidy = []
    for path in text_files():
        text = path.read_text()
        lines = text.split("\n")
        untidy += [f"{name_of(path)}:{n}" for n, line in enumerate(lines, start=1) if line != line.rstrip()]
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            untidy.append(f"{name_of(path)}: end of file")
    assert untidy == []


@pytest.mark.parametrize("word", BANNED_WORDS)
def test_no_banned_word(word: str) -> None:
    pattern = re.compile(rf"(?<![\w.]){re.escape(word)}" + (r"\b" if word[-1].isalnum() else ""))
    found = []
    for path in text_files():
        if word.startswith("0.") and name_of(path).startswith(BIND_ANYWHERE_ALLOWED):
            continue
        lines = enumerate(path.read_text().splitlines(), start=1)
        found += [f"{name_of(path)}:{number}" for number, line in lines if pattern.search(line)]
    assert found == [], BANNED_WORDS[word]


def test_print_is_left_to_commands() -> None:
    found = []
    for name, tree in parsed((".py",)):
        if not name.startswith(PRINT_ALLOWED):
            found += [
                f"{name}:{node.lineno}"
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            ]
    assert found == []


def test_only_entries_read_the_environment() -> None:
    found = []
    for name, tree in parsed((".py",)):
        if name.startswith(ENVIRONMENT_ALLOWED) or name.endswith("/app.py"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"}:
                found.append(f"{name}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                found += [f"{name}:{node.lineno}" for alias in node.names if alias.name in {"environ", "getenv"}]
    assert found == []


def test_no_python_package_keeps_mutable_state_by_global() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in parsed((".py",))
        for node in ast.walk(tree)
        if isinstance(node, ast.Global) and not name.startswith("tests/")
    ]
    assert found == []


def test_every_folder_says_its_job_in_a_short_readme() -> None:
    folders = [ROOT / folder for folder in FOLDERS if folder != ".ci"]
    silent = [name_of(folder) for folder in folders if not (folder / "README.md").exists()]
    assert silent == []
    readmes = [path for path in text_files() if path.name == "README.md" and path != ROOT_README]
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in readmes}
    assert {name: size for name, size in sizes.items() if size > README_LINES_MAX} == {}


def test_the_scan_of_cython_measures_functions() -> None:
    text = "cdef int a(\n    int x,\n) noexcept nogil:\n    return x\n\n\n"
    text += "cdef class B:\n    def c(self):\n\n        return 1\n"
    assert sorted(cython_functions_of(text)) == [("a", 4), ("c", 3)]
