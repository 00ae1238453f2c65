"""Where the offline store of a deployment lies: a folder of its own, or what a file in that folder says."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from batch.offline.catalogue import OfflineConfig
from batch.offline.roots import Roots
from headrace.errors import FailedPrecondition, InvalidArgument

CATALOGUE_FILE: Final = "catalogue.db"
WAREHOUSE_FOLDER: Final = "warehouse"
LAKE_FILE: Final = "lake.json"
_FIELDS: Final = {"catalogue_uri", "warehouse", "roots", "file_io"}


def lake_config(folder: Path, roots: Sequence[str] = ()) -> OfflineConfig:
    """Configuration of the lake of a folder. `roots` are further places that callers may name.

    Without `lake.json` the catalogue is an SQLite file and the warehouse a folder beside it. The file may name both:
    {"catalogue_uri": "postgresql+psycopg://…", "warehouse": "s3://…", "roots": [], "file_io": {}}.
    """
    place = folder.resolve()
    told = _told(place / LAKE_FILE)
    warehouse = str(told.get("warehouse") or place / WAREHOUSE_FOLDER)
    return OfflineConfig(
        str(told.get("catalogue_uri") or f"sqlite:///{place / CATALOGUE_FILE}"),
        warehouse,
        Roots([warehouse, *told.get("roots", ()), *roots]),
        dict(told.get("file_io", {})),
    )


def caller_roots(folder: Path, roots: Sequence[str] = ()) -> Roots:
    """Where callers of a service may name files: never the warehouse, whose tables are not theirs to read or write."""
    return Roots([*_told(folder.resolve() / LAKE_FILE).get("roots", ()), *roots])


def has_lake(folder: Path) -> bool:
    """Whether somebody has made a lake there."""
    return (folder / LAKE_FILE).exists() or (folder / CATALOGUE_FILE).exists()


def require_lake(folder: Path) -> None:
    """Raises FailedPrecondition where the folder holds none: a wrong name must not read as an empty history."""
    if not has_lake(folder):
        raise FailedPrecondition(
            f"{folder} holds no offline store; name its folder with --lake, or let 'headrace up' fill one",
            reason="NO_LAKE",
            field="--lake",
            metadata={"folder": str(folder)},
        )


def _told(file: Path) -> dict[str, Any]:  # Any: JSON values
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _bad(file, f"cannot be read: {error}") from error
    if not isinstance(told, dict) or told.keys() - _FIELDS:
        raise _bad(file, f"must be an object with some of {', '.join(sorted(_FIELDS))}")
    return told


def _bad(file: Path, problem: str) -> InvalidArgument:
    return InvalidArgument(f"{file} {problem}", reason="LAKE_FILE", field="lake", metadata={"file": str(file)})
