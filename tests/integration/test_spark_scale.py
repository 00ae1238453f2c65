"""The join on Spark costs the same per byte at 5, 10 and 20 GB; loadtest/spark makes the figures."""

import os

import pytest

from loadtest.spark.run import main


@pytest.mark.slow
@pytest.mark.timeout(4 * 3_600)
def test_cost_per_byte_is_flat() -> None:
    assert main(["--gb", os.environ.get("HEADRACE_TEST_GB", "5,10,20"), "--keep"]) == 0
