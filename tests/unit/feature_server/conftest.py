"""Parts of a feature server for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_server.rpc.native_front import HAS_NATIVE, TRANSPORTS, NativeTransport
from tests.unit.feature_server.parts import Parts
from tests.unit.feature_server.served import Served, serving


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture(params=TRANSPORTS)
def served(request: pytest.FixtureRequest, parts: Parts) -> Iterator[Served]:
    if request.param == NativeTransport.name and not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    with serving(parts, request.param) as opened:
        yield opened


@pytest.fixture
def native(parts: Parts) -> Iterator[Served]:
    if not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    with serving(parts, NativeTransport.name) as opened:
        yield opened
