"""A broker and a control plane for all stream tests of this test process."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cluster.processes import ServerProcess
from tests.streams.platform import Platform
from tools.kafka import Brokers


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """One broker."""
    with Brokers(tmp_path_factory.mktemp("kafka"), 1) as started:
        yield started


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A control plane of this test alone, as definitions of one name differ between tests."""
    process = ServerProcess(
        "control_plane.app", ["--data", str(tmp_path / "registry"), "--port", "0"], tmp_path / "cp.log"
    )
    process.launch()
    try:
        yield f"127.0.0.1:{process.wait_listening()}"
    finally:
        process.stop()


@pytest.fixture
def start_platform(
    tmp_path: Path, brokers: Brokers, registry: str, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Platform]]:
    """Makes platforms whose topics no other test sees, and shows their logs when the test fails."""
    made: list[Platform] = []

    def start(options: Sequence[str] = ()) -> Platform:
        prefix = f"{request.node.name.translate(_TOPIC)}.{len(made)}."
        platform = Platform(tmp_path / f"platform{len(made)}", brokers.bootstrap, registry, prefix, options)
        made.append(platform)
        platform.start()
        return platform

    yield start
    for platform in made:
        platform.stop()
        request.node.add_report_section("teardown", "logs", platform.tails())


_TOPIC = str.maketrans(dict.fromkeys("[]-/ ", "_"))
