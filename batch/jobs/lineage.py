"""Commands for lineage: the runs of a lake with what they read and wrote, and whether data are still there."""

from collections.abc import Mapping, Set
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.fs as pafs

from batch.historical.tables import located
from batch.jobs.context import Arguments, Context
from batch.jobs.historical import NO_SNAPSHOT, runs_of
from batch.jobs.training import KIND as TRAINING_SET
from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.runs import RUNNING, SUCCEEDED
from batch.training.manifest import Manifest
from batch.training.sets import TrainingSets
from headrace.errors import HeadraceError, InvalidArgument, NotFound
from headrace.names import parse_pinned_ref

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Document = dict[str, Any]  # Any: JSON values


def runs(context: Context, arguments: Arguments) -> Document:
    """Every run that has ended, in the order in which they began; one whose manifest is to come is left for later."""
    with context.catalogue() as catalogue:
        manifests = {manifest.run_id: manifest for manifest in TrainingSets(catalogue).list()}
        rows = [row for row in runs_of(catalogue).list() if row["state"] != RUNNING]
    rebuilt_from = {manifest.entities for manifest in manifests.values()}
    rows = [row for row in rows if row["run_id"] in manifests or not _lacks_manifest(row, rebuilt_from)]
    return {"runs": [_run(row, manifests.get(row["run_id"])) for row in rows]}


def check(context: Context, arguments: Arguments) -> Document:
    """Whether snapshots "view@v1#ID", training sets and datasets are there; None for what this machine cannot ask."""
    with context.catalogue() as catalogue:
        sets = {manifest.name for manifest in TrainingSets(catalogue).list()}
        return {
            "snapshots": {text: _has_snapshot(catalogue, text) for text in arguments["snapshots"]},
            "datasets": {text: _has_files(text) for text in arguments["datasets"]},
            "training_sets": {name: name in sets for name in arguments["training_sets"]},
        }


def _lacks_manifest(row: Mapping[str, Any], rebuilt_from: Set[str]) -> bool:  # Any: text, time or None
    """Whether a run without a manifest gets one yet: those that failed or made a set again never do."""
    is_made = row["kind"] == TRAINING_SET and row["state"] == SUCCEEDED
    return is_made and row["inputs"].get("entities") not in rebuilt_from


def _run(row: Mapping[str, Any], manifest: Manifest | None) -> Document:  # Any: text, time or None
    given = row["inputs"]
    inputs = [[ref, "" if number == NO_SNAPSHOT else str(number)] for ref, number in row["snapshots"].items()]
    inputs += [[f"dataset:{file}", ""] for file in str(given.get("entities", "")).split(",") if file]
    inputs += [[given["feature_service"], ""]] if given.get("feature_service") else []
    made = f"training_set:{manifest.name}" if manifest else ""
    return {
        "run_id": row["run_id"],
        "job": row["kind"],
        "is_done": row["state"] == SUCCEEDED,
        "start_time_us": _us(row["start_time"]),
        "end_time_us": _us(row["end_time"]),
        "inputs": [[name, version] for name, version in inputs if _is_node(name)],
        "outputs": [[made, ""]] if made else [],
        "git_sha": row["git_sha"],
        "kernel_version": row["kernel_version"],
        "digests": {made: manifest.digest} if manifest else {},
    }


def _is_node(name: str) -> bool:
    """Whether a name can be a node: jobs also note tables that belong to no view."""
    if name.startswith("dataset:"):
        return True
    try:
        parse_pinned_ref(name)
    except InvalidArgument:
        return False
    return True


def _has_snapshot(catalogue: Catalogue, text: str) -> bool | None:
    ref, _, number = text.rpartition("#")
    try:
        identifier = ViewColumns(parse_pinned_ref(ref), (), ()).identifier
        return catalogue.load(identifier).snapshot_by_id(int(number)) is not None
    except NotFound:
        return False
    except (InvalidArgument, ValueError):
        return None


def _has_files(uri: str) -> bool | None:
    if "*" in uri or (uri.partition("://")[0] in {"kafka", uri} and not uri.startswith("/")):
        return None  # a pattern, a topic, or a name that only another machine resolves
    try:
        filesystem, path = located(uri)
        return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)
    except (HeadraceError, pa.ArrowException, OSError):
        return None


def _us(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
