"""A cluster that cannot start says why; the one that can is in tests/integration/test_spark_cluster.py."""

from pathlib import Path

import pytest

from batch.spark.cluster import WORKERS_MAX, Cluster, standalone_cluster
from headrace.errors import InvalidArgument, Unavailable


@pytest.mark.parametrize("workers", [0, -1, WORKERS_MAX + 1])
def test_worker_count_out_of_range_starts_nothing(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InvalidArgument, match="workers must be 1 to"), standalone_cluster(tmp_path, workers=workers):
        pytest.fail("must not start")
    assert list(tmp_path.iterdir()) == []


def test_master_that_does_not_answer_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "master.log").write_text("the last word\n")
    cluster = Cluster("spark://127.0.0.1:1", "http://127.0.0.1:1/json/", tmp_path, ())
    with pytest.raises(Unavailable, match="the last word"):
        cluster.workers_alive()
