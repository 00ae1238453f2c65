"""Parts of a feature server for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.feature_server.parts import Parts


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store")
    yield opened
    opened.close()
