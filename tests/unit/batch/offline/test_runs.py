"""The table of runs."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from headrace.errors import NotFound
from tests.unit.batch.offline.parts import NOW_US, catalogue_of


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


def runs_of(catalogue: Catalogue) -> Runs:
    clock = count(NOW_US)
    return Runs(catalogue, Provenance("1", "abc"), lambda: next(clock))


def test_run_tells_its_inputs_snapshots_and_end(catalogue: Catalogue) -> None:
    runs = runs_of(catalogue)
    assert runs.list() == []
    with runs.run("drain", {"shard": "1"}) as run:
        assert [row["state"] for row in runs.list()] == ["RUNNING"]
        run.snapshots["shop.web.profile_v1"] = 5
    (row,) = runs.list()
    assert (row["run_id"], row["kind"], row["state"]) == (run.run_id, "drain", "SUCCEEDED")
    assert (row["inputs"], row["snapshots"]) == ({"shard": "1"}, {"shop.web.profile_v1": 5})
    assert (row["kernel_version"], row["git_sha"]) == ("1", "abc")
    assert row["end_time"] > row["start_time"]


@pytest.mark.parametrize(
    ("error", "detail"), [(NotFound("gone", reason="GONE"), "GONE: gone"), (OSError("disk"), "OSError")]
)
def test_failed_run_says_why_and_the_error_goes_on(catalogue: Catalogue, error: Exception, detail: str) -> None:
    runs = runs_of(catalogue)
    with pytest.raises(type(error)), runs.run("drain", {}):
        raise error
    (row,) = runs.list()
    assert (row["state"], row["detail"]) == ("FAILED", detail)


def test_table_of_runs_is_no_view(catalogue: Catalogue) -> None:
    with runs_of(catalogue).run("drain", {}):
        pass
    assert catalogue.identifiers() == []
