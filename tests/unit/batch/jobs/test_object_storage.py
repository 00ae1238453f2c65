"""Training sets whose tables, entity rows, results and manifests lie on an S3 server of the loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileType, S3FileSystem

from batch.historical.tables import located
from batch.jobs import training
from batch.jobs.context import Context
from batch.offline.maintenance import expire
from batch.training.manifest import decode_manifest
from batch.training.sets import MANIFEST_SUFFIX
from headrace.errors import FailedPrecondition
from tests.unit.batch.jobs import lakes
from tests.unit.batch.jobs.test_training import Here, arguments

WAREHOUSE = "s3://lake/history"
GIVEN = "s3://lake/given/entities.parquet"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    S3FileSystem(
        access_key="key", secret_key="secret", endpoint_override=endpoint, allow_bucket_creation=True
    ).create_dir("lake")
    # Where Arrow and the AWS libraries look for an endpoint of one's own.
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    folder = tmp_path / "lake"
    folder.mkdir()
    keys = {"s3.endpoint": endpoint, "s3.access-key-id": "key", "s3.secret-access-key": "secret"}
    (folder / "lake.json").write_text(
        json.dumps({"warehouse": WAREHOUSE, "file_io": keys, "roots": ["s3://lake/given"]})
    )
    lakes.made_lake(folder).close()
    yield Here(folder)
    server.stop()


def given(tmp_path: Path) -> None:
    lakes.entities(tmp_path / "entities.parquet")
    put(GIVEN, pq.read_table(tmp_path / "entities.parquet"))


def put(uri: str, rows: pa.Table) -> None:
    filesystem, path = located(uri)
    pq.write_table(rows, path, filesystem=filesystem)


def read(uri: str) -> pa.Table:
    filesystem, path = located(uri)
    return pq.read_table(path, filesystem=filesystem)


def test_set_on_s3_is_made_verified_and_built_again_after_loss(context: Context, tmp_path: Path) -> None:
    local = training.create(local_context(tmp_path / "local"), arguments(tmp_path, name="local"))
    given(tmp_path)
    made = training.create(context, {"name": "week", "service": lakes.SERVICE.name, "entities": [GIVEN]})
    assert made["result"].startswith(f"{WAREHOUSE}/_training_sets/week/")
    assert made["digest"] == local["digest"]
    filesystem, path = located(made["result"])
    with filesystem.open_input_stream(path + MANIFEST_SUFFIX) as stream:
        assert decode_manifest(stream.read()).digest == made["digest"]
    assert training.verify_set(context, {"name": "week"})["same"]
    with context.catalogue() as catalogue:
        lakes.append(catalogue, lakes.history([(1, 0, 77.0, "ZZ"), (9, 0, 1.0, "ZZ")], 4), 4)
        expire(lambda: catalogue.load(lakes.TABLE.identifier), 2**52)
    filesystem.delete_file(path)
    located(GIVEN)[0].delete_file(located(GIVEN)[1])
    assert training.rebuild(context, {"name": "week"})["digest"] == made["digest"]
    assert training.verify_set(context, {"name": "week"})["same"]
    left = filesystem.get_file_info(f"{path}.partial")
    assert left.type is FileType.NotFound


def test_changed_result_and_entities_on_s3_are_met(context: Context, tmp_path: Path) -> None:
    given(tmp_path)
    made = training.create(context, {"name": "week", "service": lakes.SERVICE.name, "entities": [GIVEN]})
    rows = read(made["result"])
    at = rows.schema.get_field_index("basket")
    put(made["result"], rows.set_column(at, "basket", pa.array([1.0] * rows.num_rows)))
    found = training.verify_set(context, {"name": "week"})
    assert (found["same"], found["changed_columns"]) == (False, ["basket"])
    training.rebuild(context, {"name": "week"})
    assert training.verify_set(context, {"name": "week"})["same"]
    put(made["entities"], read(made["entities"]).slice(1))
    with pytest.raises(FailedPrecondition, match="no longer those"):
        training.rebuild(context, {"name": "week"})


def local_context(folder: Path) -> Context:
    lakes.made_lake(folder).close()
    return Here(folder)
