"""The command line as a person types it, without servers."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = [
    *("up", "init", "function", "plan", "apply", "get", "list", "describe", "retire", "write", "read", "explain"),
    *("storage", "materialize", "demo", "offline", "training-set", "skew", "service", "cluster", "capacity", "lineage"),
]


def headrace(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "control_plane.cli.app", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={"PYTHONPATH": str(Path(__file__).parents[4]), "PATH": "/usr/bin:/bin", "TERM": "dumb"},
    )


def test_help_names_every_command() -> None:
    done = headrace("--help")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.split("Commands:\n")[1].splitlines()] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_hides_what_only_tests_use(command: str) -> None:
    done = headrace(command, "--help")
    assert done.returncode == 0
    assert "plant" not in done.stdout


def test_help_loads_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom control_plane.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print(sorted({'grpc', 'pyarrow', 'numpy', 'pandas', 'yaml', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_version_is_printed() -> None:
    done = headrace("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("headrace ")


def test_wrong_usage_is_exit_2_on_stderr() -> None:
    for arguments in (["no-such-command"], ["get"], ["list", "views", "-o", "xml"]):
        done = headrace(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr


def test_refusal_is_exit_1_and_one_line_on_stderr(tmp_path: Path) -> None:
    done = headrace("list", "views", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: no platform runs on the data folder .headrace")


def test_refusal_for_programs_is_one_object(tmp_path: Path) -> None:
    done = headrace("list", "views", "-o", "json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["reason"] == "NOT_RUNNING"


def test_server_that_is_gone_is_exit_1(tmp_path: Path) -> None:
    started = time.monotonic()
    done = headrace("list", "views", "--endpoint", "control=127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell: str) -> None:
    environment = {"_HEADRACE_COMPLETE": f"source_{shell}"}
    done = subprocess.run(
        [sys.executable, "-c", "from control_plane.cli.app import app; app(prog_name='headrace')"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(Path(__file__).parents[4]), **environment},
    )
    assert "headrace" in done.stdout
