"""A join whose inputs, rows between stages and result lie on an S3 server of the loopback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector, S3FileSystem

from batch.historical import join_to_parquet
from batch.historical.tables import located
from batch.spark.historical import run_historical
from batch.spark.inputs import file_rows, history_of_files
from batch.spark.plan import plan_historical
from tests.unit.batch.historical import samples
from tests.unit.batch.spark.inline import Inline

CUTOFF_US = samples.START_US + 20
SESSION: Any = None  # tasks run here


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    S3FileSystem(
        access_key="key", secret_key="secret", endpoint_override=endpoint, allow_bucket_creation=True
    ).create_dir("lake")
    yield "s3://lake"
    server.stop()


def put(table: pa.Table, uri: str, group_rows: int) -> str:
    filesystem, path = located(uri)
    pq.write_table(table, path, filesystem=filesystem, row_group_size=group_rows)
    return uri


def test_join_on_s3_is_that_of_local_files(
    bucket: str, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = samples.sample(seed, 200, 600)
    out = str(tmp_path / "local.parquet")
    local = join_to_parquet(one.spine, [samples.view(one.history)], out, time_column="at", cutoff_us=CUTOFF_US)
    spine, history = put(one.spine, f"{bucket}/spine.parquet", 90), put(one.history, f"{bucket}/history.parquet", 250)
    Inline(monkeypatch)
    plan = plan_historical(
        file_rows(spine, "spine"),
        [history_of_files(samples.view(history), history)],
        run_id=UUID(int=7),
        time_column="at",
        cutoff_us=CUTOFF_US,
        output=f"{bucket}/results",
    )
    result = run_historical(SESSION, plan)
    assert result.digest == local.digest
    assert run_historical(SESSION, plan) == result
    filesystem, path = located(plan.folder)
    names = sorted(info.base_name for info in filesystem.get_file_info(FileSelector(path, recursive=True)))
    assert names == ["_result.json", "part-0000000.parquet"], "nothing is left between stages"
