"""Certificate files: what is taken, when they are looked at, and what a bad change leaves."""

import argparse
import io
import json
import time
from pathlib import Path

import pytest

from headrace.errors import InvalidArgument
from headrace.serving.logging import EventLog
from headrace.serving.tls import RECHECK_INTERVAL_S, TlsFiles, TlsPaths, add_tls_options, tls_files
from tests.integration.certificates import Authority


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pass_interval(self) -> None:
        self.now_s += RECHECK_INTERVAL_S


def test_changed_pair_is_taken_at_most_once_a_second_and_a_bad_one_told_once(tmp_path: Path) -> None:
    authority, clock, stream = Authority(tmp_path), Clock(), io.StringIO()
    pair, second, third = (authority.issue(name) for name in ("server", "second", "third"))
    log = EventLog("test", time.time, stream)
    files = TlsFiles(TlsPaths(pair.certificate, pair.key), log, clock)
    first = files.current()
    second.copy_to(pair)
    assert files.current() is first, "no look at the files yet"
    clock.pass_interval()
    taken = files.current()
    assert taken.certificate == second.certificate.read_bytes()
    pair.key.write_bytes(third.key.read_bytes())
    for _ in range(3):
        clock.pass_interval()
        assert files.current() is taken
    pair.key.unlink()
    clock.pass_interval()
    assert files.current() is taken
    third.copy_to(pair)
    clock.pass_interval()
    assert files.current().key == third.key.read_bytes()
    assert (files.reload_count, files.failure_count) == (2, 2)
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["certificate_read", "certificate_unusable", "certificate_unusable", "certificate_read"]
    assert "PRIVATE" not in stream.getvalue()


@pytest.mark.parametrize("part", ["certificate", "key", "client_ca"])
def test_file_that_is_missing_or_garbage_is_refused(tmp_path: Path, part: str) -> None:
    authority, log = Authority(tmp_path), EventLog("test", time.time, io.StringIO())
    pair = authority.issue("server")
    bad = {"certificate": pair.certificate, "key": pair.key, "client_ca": authority.file}[part]
    paths = TlsPaths(pair.certificate, pair.key, authority.file)
    for text in ("garbage", None):
        bad.unlink() if text is None else bad.write_text(text)
        with pytest.raises(InvalidArgument) as caught:
            TlsFiles(paths, log)
        assert caught.value.reason == "TLS_FILES"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--tls-cert", "a"], "go together"),
        (["--tls-key", "a"], "go together"),
        (["--tls-client-ca", "a"], "go together"),
        (["--tls-cert", "a", "--tls-key", "b", "--tls-client-ca", "c"], "needs --tokens"),
        (["--tls-cert", "none", "--tls-key", "none"], "not readable"),
    ],
)
def test_options_that_make_no_server_are_refused(words: list[str], match: str) -> None:
    parser = argparse.ArgumentParser()
    add_tls_options(parser)
    parser.add_argument("--tokens", type=Path)
    with pytest.raises(InvalidArgument, match=match):
        tls_files(parser.parse_args(words), EventLog("test", time.time, io.StringIO()))


def test_without_options_the_server_is_plain() -> None:
    parser = argparse.ArgumentParser()
    add_tls_options(parser)
    assert tls_files(parser.parse_args([]), EventLog("test", time.time, io.StringIO())) is None
