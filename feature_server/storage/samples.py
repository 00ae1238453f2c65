"""Rows of a store that another process may have open: read without its lock, and nothing is written beside it."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

from rocksdict import AccessType, Rdict

from core_ext.hashing import xxh3_64
from core_ext.keys import split_storage_key
from feature_server.storage.files import read_file
from feature_server.storage.packed_rows import rows_of
from feature_server.storage.rocks import WRITTEN_BY_READERS, translated
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from feature_server.storage.store_folder import IDENTITY_NAME
from headrace.errors import HeadraceError, NotFound

ATTEMPTS: Final = 3  # a compaction may take files away between the listing and the opening
KEYS_SEEN_MAX: Final = 2_000_000  # of one shard; what lies behind them is not sampled
Entity = dict[int, bytes]
"""Rows of one entity by view id."""


def sample(folder: Path, entity_id: int, view_ids: Sequence[int], entity_count: int) -> dict[bytes, Entity]:
    """Entity keys and rows of these views, of about `entity_count` entities that hash to the least.

    Raises NotFound where the folder is no store.
    """
    identity = read_file(folder / IDENTITY_NAME)
    if identity is None:
        raise NotFound(
            f"{folder} holds no store; name the data folder of the platform with --data",
            reason="NO_STORE",
            field="data",
            metadata={"folder": str(folder)},
        )
    shard_count = int(json.loads(identity)["shard_count"])
    found: dict[bytes, Entity] = {}
    for number in range(shard_count):
        found |= _of_shard(folder / f"shard-{number:04}", entity_id, set(view_ids), -(-entity_count // shard_count))
    return found


def _of_shard(path: Path, entity_id: int, view_ids: set[int], count: int) -> dict[bytes, Entity]:
    if not path.exists():
        return {}
    for attempt in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="headrace-sample-") as name:
            try:
                return _least(_rows(path, Path(name), entity_id), view_ids, count)
            except HeadraceError:
                if attempt == ATTEMPTS - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


def _rows(path: Path, links: Path, entity_id: int) -> Iterator[tuple[bytes, bytes]]:
    shutil.rmtree(links)
    links.mkdir()
    for file in path.iterdir():
        if file.name not in WRITTEN_BY_READERS:
            (links / file.name).symlink_to(file.absolute())
    prefix = entity_id.to_bytes(4, "big")
    try:
        rows = Rdict(str(links), shard_options(SharedMemory(StoreBudget()), 1), access_type=AccessType.read_only(False))
        try:
            items = cast(Iterator[tuple[bytes, bytes]], rows.items(from_key=prefix))  # raw mode: bytes alone
            for number, (key, row) in enumerate(items):
                if not key.startswith(prefix) or number == KEYS_SEEN_MAX:
                    return
                yield from rows_of(key, row).items()
        finally:
            rows.close()
    except HeadraceError:
        raise
    except Exception as error:
        raise translated(error, path) from error


def _least(rows: Iterator[tuple[bytes, bytes]], view_ids: set[int], count: int) -> dict[bytes, Entity]:
    """Entities of the least hashes, so that the sample does not lean to small keys; few are held at a time."""
    found: dict[bytes, Entity] = {}
    for storage_key, row in rows:
        _, key, view_id = split_storage_key(storage_key)
        if view_id in view_ids:
            found.setdefault(key, {})[view_id] = row
        if len(found) > 4 * count:
            found = _kept(found, count, last=key)
    return _kept(found, count)


def _kept(found: dict[bytes, Entity], count: int, last: bytes = b"") -> dict[bytes, Entity]:
    names = sorted(found, key=xxh3_64)[:count]
    return {key: found[key] for key in {*names, *({last} & found.keys())}}
