"""What a cluster is refused for before anything starts."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.cli.cluster.up import (
    RING_METRICS_PORT,
    SERVERS_MAX,
    ClusterOptions,
    _ports,
    _server_ports,
    cluster,
)
from control_plane.cli.up import CONTROL_METRICS_PORT, CONTROL_PORT
from headrace.errors import FailedPrecondition, InvalidArgument


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (ClusterOptions(servers=0), "--servers"),
        (ClusterOptions(servers=10), "--servers"),
        (ClusterOptions(servers=2, replicas=3), "--replicas"),
        (ClusterOptions(replicas=0), "--replicas"),
        (ClusterOptions(brokers=2), "--brokers"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(tmp_path: Path, options: ClusterOptions, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught, cluster(tmp_path, options, lambda _: None):
        pass
    assert (caught.value.reason, caught.value.field) == ("CLUSTER_SHAPE", field)


def test_shards_are_a_power_of_two() -> None:
    with pytest.raises(InvalidArgument, match="power of two"):
        ClusterOptions(shards=48).check()


@pytest.mark.parametrize("behind", [0, 2])
def test_named_port_in_use_is_refused(busy: int, behind: int) -> None:
    for options in (
        ClusterOptions(feature_port=busy - behind),
        ClusterOptions(kafka_port=busy - behind, brokers=3),
    ):
        with pytest.raises(FailedPrecondition, match="in use") as caught:
            options.check()
        assert caught.value.reason == "PORT_IN_USE"


@pytest.mark.parametrize("behind", range(SERVERS_MAX + 1))
def test_metrics_take_no_port_of_a_named_range(behind: int) -> None:
    first = RING_METRICS_PORT - behind
    found = _server_ports(ClusterOptions(servers=SERVERS_MAX, feature_port=first))
    ports = {port for pair in found for port in pair}
    assert [port for port, _ in found] == list(range(first, first + SERVERS_MAX + 1))
    assert len(ports) == 2 * (SERVERS_MAX + 1)


def test_servers_that_start_first_leave_the_named_ranges_to_others() -> None:
    options = ClusterOptions(servers=SERVERS_MAX, feature_port=CONTROL_METRICS_PORT - 1, kafka_port=CONTROL_PORT)
    _, port, metrics_port = _ports(options, CONTROL_PORT, CONTROL_METRICS_PORT)
    assert not {port, metrics_port} & set(options.named_ports().values()) and port != metrics_port
    assert (
        _ports(ClusterOptions(port=CONTROL_METRICS_PORT), CONTROL_PORT, CONTROL_METRICS_PORT)[2] > CONTROL_METRICS_PORT
    )


def test_any_ports_are_left_to_the_system() -> None:
    assert _server_ports(ClusterOptions(servers=2, any_ports=True)) == [(0, 0)] * 3
