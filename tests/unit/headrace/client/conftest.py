"""A scripted feature service for the tests of the client."""

from collections.abc import Iterator

import pytest

from tests.unit.headrace.client.online_service import Served, serve


@pytest.fixture
def served() -> Iterator[Served]:
    yield from serve()
