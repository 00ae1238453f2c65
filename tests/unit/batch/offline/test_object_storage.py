"""The offline store on an S3 server of the loopback."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from moto.server import ThreadedMotoServer

from batch.offline.catalogue import Catalogue, OfflineConfig
from batch.offline.maintenance import compact, expire
from batch.offline.roots import Roots
from headrace.errors import InvalidArgument
from tests.unit.batch.offline.parts import VIEW, offsets_of, range_of, rows_of

WAREHOUSE = "s3://lake/history"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Address of an S3 server with one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    files = pafs.S3FileSystem(
        access_key="key", secret_key="secret", endpoint_override=f"http://{host}:{port}", allow_bucket_creation=True
    )
    files.create_dir("lake")
    yield f"http://{host}:{port}"
    server.stop()


def config_of(folder: Path, endpoint: str, warehouse: str = WAREHOUSE) -> OfflineConfig:
    settings = {"s3.endpoint": endpoint, "s3.access-key-id": "key", "s3.secret-access-key": "secret"}
    return OfflineConfig(f"sqlite:///{folder / 'catalogue.db'}", warehouse, Roots([WAREHOUSE]), settings)


def test_table_lives_in_object_storage_through_merge_and_expiry(tmp_path: Path, endpoint: str) -> None:
    catalogue = Catalogue(config_of(tmp_path, endpoint))
    table = catalogue.view_table(VIEW)
    for number in range(4):
        table.append(rows_of([number]), [range_of(number, number + 1)])
    assert table.append(rows_of(range(6)), [range_of(0, 6)])[:2] == (2, 4)
    assert compact(lambda: catalogue.load(VIEW.identifier)) == (5, 1, 0)
    assert expire(lambda: catalogue.load(VIEW.identifier), 2**52).snapshot_count == 5
    assert offsets_of(table.read()) == list(range(6))
    assert catalogue.load(VIEW.identifier).location().startswith(WAREHOUSE)
    catalogue.close()


def test_warehouse_outside_the_roots_is_refused(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Catalogue(config_of(tmp_path, endpoint, "s3://lake/other"))
    assert caught.value.field == "warehouse"
