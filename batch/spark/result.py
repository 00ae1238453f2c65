"""The result of a job: part files that workers write, and one manifest that makes them visible."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

import numpy as np

from batch.historical import Digest
from batch.historical.checks import names_of
from batch.historical.failures import writing
from batch.historical.inputs import kind_of
from batch.historical.tables import ParquetRows, located
from batch.spark.plan import HistoricalPlan
from core_ext.arrow import arrow_column
from core_ext.digest import RowDigest
from headrace.errors import AlreadyExists, DataLoss
from headrace.types import ValueType

MANIFEST: Final = "_result.json"
SCRATCH: Final = "_between"
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

    def features(self) -> list[tuple[str, ValueType]]:
        """Features of the result in their order."""
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


@contextmanager
def scratch(folder: str) -> Iterator[str]:
    """Makes the folder of a result, which only a manifest makes one, and in it one for rows between stages.

    That is gone at the end. One that a killed driver left goes with the next that comes to its end.
    """
    filesystem, path = located(f"{folder}/{SCRATCH}")
    name = uuid4().hex  # two drivers of one run id stay apart until one of them publishes
    with writing(folder):
        filesystem.create_dir(f"{path}/{name}", recursive=True)
    try:
        yield f"{folder}/{SCRATCH}/{name}"
    finally:
        with suppress(FileNotFoundError):  # swept by another driver of this run, which has published
            filesystem.delete_dir(f"{path}/{name}")


def sweep(folder: str) -> None:
    """Takes away what is left between stages, once a manifest stands."""
    filesystem, path = located(f"{folder}/{SCRATCH}")
    with suppress(FileNotFoundError):
        filesystem.delete_dir(path)


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
    sweep(plan.folder)
    return result


def digest_of(plan: ResultPlan, files: list[str]) -> Digest:
    """Digest of the features in files, as the local engine computes it."""
    columns = [(name, kind_of(kind)) for name, kind in plan.features()]
    digest, names = RowDigest(columns), [name for name, _ in columns]
    rows = ParquetRows(files, "result")
    wanted = [one for name in names for one in names_of(name)]
    for chunk in rows.chunks:
        for batch in rows.read(chunk, wanted):
            values: list[Any] = [arrow_column(batch.column(name)) for name in wanted[::2]]
            digest.update(values, [np.asarray(batch.column(name)) for name in wanted[1::2]])
    return Digest(digest.hexdigest(), dict(zip(names, digest.column_hashes(), strict=True)))
