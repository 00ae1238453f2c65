"""Holds the Bazel targets to the packages, cores and commands that pyproject.toml and setup.py discover."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from setuptools import find_namespace_packages

from core_ext import keys

ROOT = Path(__file__).resolve().parent.parent.parent
SETUP_LINES_MAX = 40
LIMIT_S = 120
LOCKS = ("build", "demo", "dev", "runtime")


@dataclass
class Target:
    """One call of a rule in BUILD.bazel."""

    rule: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [source for source in self.arguments.get("srcs", []) if not source.startswith(":")]


def pattern(glob: str) -> re.Pattern[str]:
    """What Bazel's glob means: ** crosses folders, * does not."""
    parts = re.split(r"(\*\*/|\*\*|\*)", glob)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts))


def checkout_files() -> list[str]:
    skipped = {".git", ".venv", ".venvs", "build", "dist", ".hypothesis", "__pycache__"}
    found = []
    for path in ROOT.iterdir():
        if path.is_file():
            found.append(path.name)
        elif path.name not in skipped:
            found += [inner.relative_to(ROOT).as_posix() for inner in path.rglob("*") if inner.is_file()]
    return sorted(name for name in found if "__pycache__" not in name)


def starlark() -> Iterator[Target]:
    """Runs BUILD.bazel, which is Python as well, with rules that only note how they are called."""
    noted: list[Target] = []
    files = checkout_files()

    def glob(include: list[str], exclude: list[str] | None = None) -> list[str]:
        wanted, unwanted = ([pattern(each) for each in kind] for kind in (include, exclude or []))
        kept = [name for name in files if any(each.fullmatch(name) for each in wanted)]
        return [name for name in kept if not any(each.fullmatch(name) for each in unwanted)]

    def rule(name: str) -> Callable[..., None]:
        return lambda **arguments: noted.append(Target(name, arguments))

    names: dict[str, Any] = {"glob": glob, "package": lambda **_: None}

    def load(_file: str, *rules: str) -> None:
        names.update({name: rule(name) for name in rules})

    names["load"] = load
    exec(compile((ROOT / "BUILD.bazel").read_text(), "BUILD.bazel", "exec"), names)
    yield from noted


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    return {target.arguments["name"]: target for target in starlark()}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def discovered_packages(project: dict[str, Any]) -> set[str]:
    """Folders that setuptools packs into the wheel."""
    options = project["tool"]["setuptools"]["packages"]["find"]
    return set(find_namespace_packages(str(ROOT), include=options["include"]))


def of_rule(targets: dict[str, Target], rule: str) -> dict[str, Target]:
    return {name: target for name, target in targets.items() if target.rule == rule}


def modules_in(names: list[str]) -> set[str]:
    return {name for name in names if name.endswith(".py") and "_pb2" not in name}


def test_bazel_packs_the_modules_of_the_wheel(targets: dict[str, Target], project: dict[str, Any]) -> None:
    folders = {name.replace(".", "/") for name in discovered_packages(project)}
    packed = modules_in([path for path in checkout_files() if path.rpartition("/")[0] in folders])
    tops = {folder.split("/")[0] for folder in folders}
    built = modules_in([name for top in tops for name in targets[top].files()])
    assert built == packed
    assert len(packed) > 20, "the scan has lost the modules"


def test_bazel_has_one_target_per_packed_folder(targets: dict[str, Target], project: dict[str, Any]) -> None:
    tops = {name.split(".")[0] for name in discovered_packages(project)}
    assert set(of_rule(targets, "python_package")) == tops | {"tools_and_examples"}


def test_bazel_dependencies_name_targets(targets: dict[str, Target]) -> None:
    asked = {name for target in targets.values() for name in target.arguments.get("deps", [])}
    asked |= {
        source[1:] for target in targets.values() for source in target.arguments.get("srcs", []) if source[:1] == ":"
    }
    assert asked <= set(targets)


def test_bazel_compiles_every_core(targets: dict[str, Target]) -> None:
    cores = {f"core_ext.{source.stem}" for source in (ROOT / "core_ext").glob("*.pyx")}
    assert set(targets["cores"].arguments["modules"]) == cores
    inputs = {
        name for name in checkout_files() if name.startswith("core_ext/") and name.endswith((".pyx", ".pxd", ".h"))
    }
    assert set(targets["cores"].files()) >= inputs | {"setup.py", "pyproject.toml"}


def test_tests_run_the_chosen_build_of_the_cores(pytestconfig: pytest.Config, repository: Path) -> None:
    chosen = pytestconfig.getoption("--core-build") or "."
    assert Path(keys.__file__).resolve().parent == (repository / chosen / "core_ext").resolve()


def test_a_folder_with_its_own_conftest_runs_the_chosen_build_as_well(repository: Path) -> None:
    """Its conftest.py, which loads cores, is read before pytest has read the options."""
    folder = "tests/unit/feature_server"
    assert (repository / folder / "conftest.py").is_file()
    this = "test_build_files.py::test_tests_run_the_chosen_build_of_the_cores"
    command = [sys.executable, "-m", "pytest", "-q", "--core-build=build/checked"]
    command += ["-p", "no:cacheprovider", f"{folder}/domain/test_read_counts.py", f"tests/unit/{this}"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_bazel_generates_stubs_of_every_contract(targets: dict[str, Target]) -> None:
    contracts = {name for name in checkout_files() if name.startswith("protos/") and name.endswith(".proto")}
    assert set(targets["stubs"].files()) == contracts


def test_bazel_builds_every_command(targets: dict[str, Target], project: dict[str, Any]) -> None:
    commands = {name: target.arguments["entry"] for name, target in of_rule(targets, "python_command").items()}
    assert commands == {f"command_{name}": entry for name, entry in project["project"]["scripts"].items()}


def test_bazel_runs_every_unit_test(targets: dict[str, Target]) -> None:
    named = [path for target in of_rule(targets, "python_test").values() for path in target.arguments["paths"]]
    tests = ROOT / "tests/unit"
    folders = {folder.relative_to(ROOT).as_posix() for folder in tests.iterdir() if any(folder.rglob("test_*.py"))}
    files = {path.relative_to(ROOT).as_posix() for path in tests.glob("test_*.py")}
    assert set(named) >= folders | files
    assert len(named) == len(set(named))


def test_bazel_reads_nothing_that_the_checkout_has_built(targets: dict[str, Target]) -> None:
    read = {name for target in targets.values() for name in target.files()}
    assert [name for name in read if name.endswith((".so", ".pyc", "_pb2.py"))] == []


def test_both_entry_files_of_bazel_declare_the_interpreter() -> None:
    for name in ("WORKSPACE", "MODULE.bazel"):
        assert 'local_python(name = "headrace_python")' in (ROOT / name).read_text()


def test_versions_agree(project: dict[str, Any]) -> None:
    assert f'version = "{project["project"]["version"]}"' in (ROOT / "MODULE.bazel").read_text()
    assert project["build-system"]["requires"] != []
    pinned = {line.split(" ")[0] for line in (ROOT / "requirements/build.txt").read_text().splitlines()}
    assert set(project["build-system"]["requires"]) <= pinned


def test_setup_script_stays_small() -> None:
    assert len((ROOT / "setup.py").read_text().splitlines()) <= SETUP_LINES_MAX


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_every_package_by_hash_and_names_no_index(lock: str) -> None:
    text = (ROOT / f"requirements/{lock}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [
        entry for entry in entries if not re.match(r"[\w.\-\[\]]+==\S+", entry) or "--hash=sha256:" not in entry
    ] == []
    assert re.search(r"https?:|--index|--extra-index|--find-links|@ ", text) is None


def test_locks_agree_on_every_version() -> None:
    pins: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in re.findall(r"^([\w.\-]+)(==\S+)", (ROOT / f"requirements/{lock}.txt").read_text(), re.M):
            pins.setdefault(name, set()).add(version)
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}
    assert len(pins) > 50, "the scan has lost the packages"


def test_makefile_explains_every_verb() -> None:
    text = (ROOT / "Makefile").read_text()
    verbs = set(re.search(r"^\.PHONY: (.+)$", text, re.M).group(1).split())  # type: ignore[union-attr]
    explained = set(re.findall(r"^([a-z-]+):.*## \w", text, re.M))
    assert verbs == explained
    assert verbs >= {"help", "demo", "test", "check", "test-slow", "sanitize", "lock", "wheel", "bazel"}


def test_change_check_runs_the_tests_within_its_limit() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert re.search(r"timeout .*\b90m make test$", script.read_text(), re.M)
