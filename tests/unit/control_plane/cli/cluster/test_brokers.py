"""What brokers are started with; that they run is seen by tests/streams."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from control_plane.cli.cluster.broker_app import _choose_ports, _tied
from control_plane.cli.cluster.brokers import JARS_VARIABLE, BrokerError, Brokers, new_cluster_id


def test_no_identity_reads_as_an_option() -> None:
    found = {new_cluster_id() for _ in range(2_000)}
    assert len(found) == 2_000 and not any(one.startswith("-") for one in found)


def test_folder_without_jars_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JARS_VARIABLE, str(tmp_path))
    with pytest.raises(BrokerError, match=f"make setup.*{JARS_VARIABLE}"):
        Brokers(tmp_path / "kafka")


def test_brokers_are_tied_to_the_process_that_starts_them_not_to_the_one_that_imported() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as others:
        assert others.submit(_tied).result()[2] == str(*others._processes) != _tied()[2]


def test_ports_are_those_that_were_named_or_free_ones(tmp_path: Path) -> None:
    _choose_ports(tmp_path, 3, 20_100)
    ports = list(map(int, (tmp_path / "ports").read_text().split()))
    assert ports[::2] == [20_100, 20_101, 20_102] and len(set(ports)) == 6
    _choose_ports(tmp_path, 3, None)
    again = list(map(int, (tmp_path / "ports").read_text().split()))
    assert len(set(again)) == 6 and again[::2] != ports[::2]


def test_folder_of_another_number_of_brokers_keeps_its_ports(tmp_path: Path) -> None:
    _choose_ports(tmp_path, 1, 20_200)
    before = (tmp_path / "ports").read_text()
    _choose_ports(tmp_path, 3, None)
    assert (tmp_path / "ports").read_text() == before
