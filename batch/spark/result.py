"""The result of a job: part files that workers write, and one manifest that makes them visible."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa

from batch.historical import Digest
from batch.historical.checks import names_of
from batch.historical.failures import writing
from batch.historical.inputs import HistoryInput, kind_of
from batch.historical.output import ResultFile, feature_schema, features_of
from batch.historical.tables import ParquetRows, located
from batch.spark.columns import back
from batch.spark.inputs import ORDINAL, read_chunk
from batch.spark.plan import HistoricalPlan, Part
from core_ext.arrow import arrow_column
from core_ext.digest import RowDigest
from headrace.errors import AlreadyExists, DataLoss, InternalError

MANIFEST: Final = "_result.json"
MANIFEST_BYTES_MAX: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job left: files in spine order, and the proof of their values. Equal for every run of one plan."""

    run_id: str
    plan_sha256: str
    folder: str
    files: list[str]
    row_count: int
    digest: Digest


def write_part(plan: HistoricalPlan, part: Part, features: pa.Table) -> None:
    """Writes one file: the spine's own columns, read anew, beside the features in spine order."""
    features = features.sort_by(ORDINAL)
    ordinals = np.asarray(features.column(ORDINAL))
    if not np.array_equal(ordinals, np.arange(part.first_row, part.first_row + part.row_count)):
        raise InternalError(
            f"{part.name} got {len(ordinals)} rows that are not its {part.row_count}",
            reason="ROWS_LOST",
            metadata={"part": part.name},
        )
    views = plan.views()
    schema = feature_schema(views)
    arrays = [back(features.column(field.name), field.type) for field in schema]
    uri = f"{plan.folder}/{part.name}"
    run_id = uuid4()  # a name of its own for every attempt of a task
    with ResultFile(uri, plan.spine.schema, features_of(views), run_id) as file:
        if part.row_count:
            file.write(_spine_rows(plan, part), pa.Table.from_arrays(arrays, schema=schema))


class ResultPlan(Protocol):
    """What a result knows of its job."""

    @property
    def run_id(self) -> UUID:
        """Names the result."""
        ...

    @property
    def folder(self) -> str:
        """Where it lies."""
        ...

    def views(self) -> list[HistoryInput]:
        """The views in the order of their columns."""
        ...

    def digest(self) -> str:
        """SHA-256 of what is computed from what."""
        ...


def find_result(plan: ResultPlan) -> JobResult | None:
    """The result of an earlier run of the same plan. Raises AlreadyExists when the run id stands for another plan."""
    filesystem, path = located(f"{plan.folder}/{MANIFEST}")
    try:
        with filesystem.open_input_stream(path) as stream:
            held = json.loads(stream.read(MANIFEST_BYTES_MAX))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        message = f"{plan.folder}/{MANIFEST} cannot be read: {error}; remove the folder and run the job again"
        raise DataLoss(message, reason="CORRUPT_MANIFEST", metadata={"folder": plan.folder}) from error
    result = JobResult(**{**held, "digest": Digest(**held["digest"])})
    if result.plan_sha256 != plan.digest():
        message = f"run {plan.run_id} has computed something else into {plan.folder}: give the job a run id of its own"
        raise AlreadyExists(message, reason="RUN_ID_TAKEN", field="run_id", metadata={"run_id": str(plan.run_id)})
    return result


def prepare(plan: ResultPlan) -> None:
    """Makes the folder, which only a manifest makes a result."""
    filesystem, path = located(plan.folder)
    with writing(plan.folder):
        filesystem.create_dir(path, recursive=True)


def publish(plan: HistoricalPlan) -> JobResult:
    """Reads the parts in their order for the digest, and writes the manifest last."""
    return publish_files(plan, [f"{plan.folder}/{part.name}" for part in plan.parts], plan.spine.row_count)


def publish_files(plan: ResultPlan, names: list[str], row_count: int) -> JobResult:
    """The same for files that are named."""
    result = JobResult(str(plan.run_id), plan.digest(), plan.folder, names, row_count, digest_of(plan, names))
    filesystem, path = located(f"{plan.folder}/{MANIFEST}")
    under_way = f"{path}.{uuid4().hex}.partial"
    with writing(plan.folder):
        with filesystem.open_output_stream(under_way) as stream:
            stream.write(json.dumps(asdict(result), indent=1).encode())
        filesystem.move(under_way, path)
    return result


def digest_of(plan: ResultPlan, files: list[str]) -> Digest:
    """Digest of the features in files, as the local engine computes it."""
    columns = [(view.output_of(column), kind_of(column.type)) for view in plan.views() for column in view.columns]
    digest, names = RowDigest(columns), [name for name, _ in columns]
    rows = ParquetRows(files, "result")
    wanted = [one for name in names for one in names_of(name)]
    for chunk in rows.chunks:
        for batch in rows.read(chunk, wanted):
            values: list[Any] = [arrow_column(batch.column(name)) for name in wanted[::2]]
            digest.update(values, [np.asarray(batch.column(name)) for name in wanted[1::2]])
    return Digest(digest.hexdigest(), dict(zip(names, digest.column_hashes(), strict=True)))


def _spine_rows(plan: HistoricalPlan, part: Part) -> pa.Table:
    end = part.first_row + part.row_count
    names, pieces = plan.spine.schema.names, []
    for chunk in plan.spine.chunks:
        at = chunk.first_row
        if at >= end or at + chunk.row_count <= part.first_row:
            continue
        for batch in read_chunk(chunk, names, "spine"):
            low, high = max(part.first_row, at), min(end, at + batch.num_rows)
            if low < high:
                pieces.append(batch.slice(low - at, high - low))
            at += batch.num_rows
    return pa.Table.from_batches([piece.select(names) for piece in pieces]).cast(plan.spine.schema)
