"""Checks the set-up before the first test, chooses the core build and gives every run one printed seed."""

import argparse
import os
import random
import shlex
from pathlib import Path

import hypothesis
import pytest

import core_ext
from tests.record import RunRecord

ROOT = Path(__file__).parent.parent
OPTIONAL_CORES = {"native_loop"}  # compiled only where their libraries are: see setup.py
SEED_MAX = 2**32 - 1  # what every consumer of the seed accepts
SEED = 20131  # of every run that asks for no other: the same commit gives the same outcome

# Timings never decide a test: the machines are shared, so Hypothesis must not fail a slow example.
hypothesis.settings.register_profile("headrace", deadline=None, print_blob=True)
hypothesis.settings.load_profile("headrace")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    # Folders that the command line names may have a conftest.py that loads cores; it is read next.
    config = pluginmanager.get_plugin("pytestconfig")
    assert isinstance(config, pytest.Config)
    put_first(_core_build(config))
    parser.addoption("--seed", type=_seed, default=SEED, help="what random choices begin with, or `random`")
    parser.addoption(
        "--core-build",
        default=None,
        metavar="DIR",
        help="run the cores compiled into DIR (build/checked, build/sanitize), not those beside their sources",
    )
    parser.addoption("--record", default=None, metavar="DIR", help="write outcomes, machine and commit into DIR, dated")


def _core_build(config: pytest.Config) -> str | None:
    """The option, while pytest has not read the command line yet."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--core-build")
    words = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *config.invocation_params.args]
    found: str | None = early.parse_known_args([*map(str, words)])[0].core_build
    return found


def put_first(folder: str | None) -> None:
    """Puts one build of the cores in front of the package path."""
    if folder is not None:
        core_ext.__path__.insert(0, str(_cores_of(folder)))


def _cores_of(folder: str) -> Path:
    return (ROOT / folder / "core_ext").resolve()


def _seed(text: str) -> int:
    return random.SystemRandom().randint(0, SEED_MAX) if text == "random" else int(text)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(config.option.seed)
    check_cores(config.option.core_build)
    if config.option.record is not None and not hasattr(config, "workerinput"):  # the one that starts the others tells
        config.pluginmanager.register(RunRecord(ROOT / config.option.record, ROOT, config.option.seed))


def check_cores(folder: str | None) -> None:
    """Refuses a run that lacks stubs or cores, or that has loaded other cores than it asks for."""
    missing = [] if (ROOT / "protos/common/v1/options_pb2.py").exists() else ["protobuf stubs"]
    sources = [source.stem for source in sorted((ROOT / "core_ext").glob("*.pyx"))]
    needed = [name for name in sources if name not in OPTIONAL_CORES]
    if folder is not None:
        cores = _cores_of(folder)
        missing += [f"{folder}: {name}" for name in needed if not any(cores.glob(f"{name}.*.so"))]
        assert core_ext.__path__[0] == str(cores), f"--core-build={folder} came too late"
    elif sources and not any((ROOT / "core_ext").glob("*.so")):
        missing.append("compiled cores")
    if missing:
        raise pytest.UsageError(f"not set up, missing {', '.join(missing)}: run `make build`")


def pytest_report_header(config: pytest.Config) -> str:
    build = config.option.core_build or "beside their sources"
    return f"seed: {config.option.seed} (repeat with --seed {config.option.seed}); cores: {build}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"repeat this run with --seed {config.option.seed}")


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The seed of this run, for tests that draw at random."""
    return int(pytestconfig.option.seed)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT
