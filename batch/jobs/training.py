"""Commands on training sets: made from a service and entity rows, shown, verified, rebuilt, told apart."""

import json
from dataclasses import asdict, replace
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from batch.historical.failures import writing
from batch.historical.tables import located
from batch.jobs.context import Arguments, Context, request_of, run_id_of
from batch.jobs.entities import entity_batches, entity_digest, read_entities
from batch.jobs.historical import HistoricalRequest, HistoricalResult, now_us, run_historical
from batch.jobs.on_demand import HIDDEN_PREFIX
from batch.jobs.services import WantedService, service_document, service_from_document
from batch.training.changes import changed_rows
from batch.training.manifest import NO_SNAPSHOT, FeatureOrigin, Manifest, differences
from batch.training.sets import TrainingSets
from batch.training.verify import verify
from headrace.definitions.transform import KERNEL_SEMANTICS_VERSION, canonical_json
from headrace.errors import AlreadyExists, FailedPrecondition, NotFound
from headrace.names import check_word

SETS_FOLDER: Final = "_training_sets"  # no team begins with an underscore
ENTITIES_FILE: Final = "entities.parquet"
RESULT_FILE: Final = "result.parquet"
KIND: Final = "training_set"

Document = dict[str, Any]  # Any: JSON values


def create(context: Context, arguments: Arguments) -> Document:
    """Freezes the features of a service for entity rows under a name."""
    name = check_word(arguments["name"], "name", "training set")
    service = context.service(arguments["service"])
    with context.catalogue() as catalogue:
        sets = TrainingSets(catalogue)
        _refuse_known(sets, name)
        folder = f"{catalogue.warehouse}/{SETS_FOLDER}/{name}"
        request = request_of(context, arguments, arguments.get("output") or f"{folder}/{RESULT_FILE}")
        copied = f"{folder}/{ENTITIES_FILE}"
        digest = _copy_entities(request.entities, copied)
        request = replace(request, entities=(copied,), every_view=True)
        result = run_historical(
            catalogue, service, request, progress=context.progress, run_id=run_id_of(arguments), kind=KIND
        )
        manifest = _manifest(name, service, request, result, digest)
        sets.create(manifest)
    return _document(manifest)


def list_sets(context: Context, arguments: Arguments) -> Document:
    """Every set, by name."""
    with context.catalogue() as catalogue:
        return {"training_sets": [_summary(manifest) for manifest in TrainingSets(catalogue).list()]}


def show(context: Context, arguments: Arguments) -> Document:
    """One set in full."""
    with context.catalogue() as catalogue:
        return _document(TrainingSets(catalogue).get(arguments["name"]))


def verify_set(context: Context, arguments: Arguments) -> Document:
    """Whether the result still holds what the manifest says."""
    with context.catalogue() as catalogue:
        manifest = TrainingSets(catalogue).get(arguments["name"])
    verdict = verify(manifest)
    return {
        "name": manifest.name,
        "same": verdict.is_same,
        "row_count": verdict.row_count,
        "expected_row_count": manifest.row_count,
        "digest": verdict.digest,
        "expected_digest": manifest.digest,
        "changed_columns": list(verdict.changed_columns),
    }


def rebuild(context: Context, arguments: Arguments) -> Document:
    """Computes a set again from its pinned snapshots; only the very same values take the place of the result."""
    with context.catalogue() as catalogue:
        manifest = TrainingSets(catalogue).get(arguments["name"])
        if not manifest.feature_service:
            raise FailedPrecondition(
                f"training set {manifest.name!r} was not made by a command that keeps its definitions; join it by hand",
                reason="NOT_REBUILDABLE",
                metadata={"name": manifest.name},
            )
        _check_entities(manifest)
        output = context.place(arguments.get("output") or manifest.result, "output")
        draft = f"{output}.{uuid4().hex}.rebuilt"
        request = HistoricalRequest(
            entities=(manifest.entities,),
            output=draft,
            time_column=manifest.time_column,
            cutoff_us=manifest.cutoff_us,
            temp_folder=arguments.get("temp_folder") or None,
            snapshots=manifest.snapshots,
        )
        if arguments.get("memory_limit_bytes"):
            request = replace(request, memory_limit_bytes=int(arguments["memory_limit_bytes"]))
        service = service_from_document(json.loads(manifest.feature_service))
        result = run_historical(catalogue, service, request, progress=context.progress, kind=KIND)
    _take_place(manifest, result, draft, output)
    return {"name": manifest.name, "same": True, "digest": result.digest, "output": output}


def diff(context: Context, arguments: Arguments) -> Document:
    """What differs between two sets: inputs, columns and rows, each with its cause."""
    with context.catalogue() as catalogue:
        sets = TrainingSets(catalogue)
        first, second = sets.get(arguments["first"]), sets.get(arguments["second"])
    found = [asdict(one) for one in differences(first, second)]
    rows = []
    if first.entity_digest == second.entity_digest:
        rows = [one.document() for one in changed_rows(first, second)]
    return {"first": first.name, "second": second.name, "same": not found, "differences": found, "changed_rows": rows}


# ---- parts ----


def _refuse_known(sets: TrainingSets, name: str) -> None:
    try:
        sets.get(name)
    except NotFound:
        return
    raise AlreadyExists(
        f"there is a training set {name!r}; choose another name, as one means the same for ever",
        reason="TRAINING_SET_EXISTS",
        field="name",
        metadata={"name": name},
    )


def _copy_entities(files: tuple[str, ...], target: str) -> str:
    """Keeps the entity rows with the set, so that it can be rebuilt when their file is gone; gives their digest."""
    entities = read_entities(files)
    digest = entity_digest(entities)
    filesystem, path = located(target)
    with writing(target):
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        writer = None
        draft = f"{path}.{uuid4().hex}.partial"
        try:
            with filesystem.open_output_stream(draft) as sink:
                for batch in entity_batches(entities):
                    writer = writer or pq.ParquetWriter(sink, batch.schema)
                    writer.write_batch(batch)
                if writer is None:
                    writer = pq.ParquetWriter(sink, _schema(entities))
                writer.close()
            filesystem.move(draft, path)
        except BaseException:
            if filesystem.get_file_info(draft).type.name != "NotFound":
                filesystem.delete_file(draft)
            raise
    return digest


def _schema(entities: "list[str] | pa.Table") -> pa.Schema:
    return entities.schema if isinstance(entities, pa.Table) else pq.read_schema(entities[0])


def _check_entities(manifest: Manifest) -> None:
    found = entity_digest(read_entities((manifest.entities,)))
    if found != manifest.entity_digest:
        raise FailedPrecondition(
            f"the entity rows {manifest.entities} are no longer those of training set {manifest.name!r}; restore them",
            reason="ENTITIES_CHANGED",
            metadata={"name": manifest.name, "entities": manifest.entities},
        )


def _take_place(manifest: Manifest, result: HistoricalResult, draft: str, output: str) -> None:
    filesystem, path = located(draft)
    if result.digest != manifest.digest:
        filesystem.delete_file(path)
        changed = sorted(
            name for name, value in manifest.column_hashes.items() if result.column_hashes.get(name) != value
        )
        raise FailedPrecondition(
            f"training set {manifest.name!r} comes out with other values in {', '.join(changed) or 'their order'}: "
            f"it was made by kernel {manifest.kernel_version}, this is kernel {KERNEL_SEMANTICS_VERSION}; the result "
            "in place was not touched",
            reason="REBUILD_DIFFERS",
            metadata={"name": manifest.name, "digest": result.digest},
        )
    with writing(output):
        filesystem.move(path, located(output)[1])


def _manifest(
    name: str, service: WantedService, request: HistoricalRequest, result: HistoricalResult, digest: str
) -> Manifest:
    origins = [
        FeatureOrigin(
            column.output, column.type, view.ref, column.feature, result.snapshots[view.ref], view.transform_digest
        )
        for view in service.views
        for column in view.columns
    ]
    computed = [
        FeatureOrigin(one.output, one.type, one.ref, one.feature, NO_SNAPSHOT, one.transform_digest)
        for one in (service.on_demand.programs if service.on_demand is not None else ())
        if one.output
    ]
    hidden = [origin for origin in origins if origin.output.startswith(HIDDEN_PREFIX)]
    return Manifest(
        name=name,
        run_id=result.run_id,
        create_time_us=now_us(),
        cutoff_us=result.cutoff_us,
        kernel_version=str(KERNEL_SEMANTICS_VERSION),
        entity_digest=digest,
        features=tuple(origin for origin in [*origins, *computed] if origin not in hidden),
        inputs=tuple(hidden),
        result=request.output,
        row_count=result.row_count,
        digest=result.digest,
        column_hashes=result.column_hashes,
        feature_service=canonical_json(service_document(service)),
        entities=request.entities[0],
        time_column=request.time_column,
    )


def _summary(manifest: Manifest) -> Document:
    service = json.loads(manifest.feature_service)["name"] if manifest.feature_service else ""
    return {
        "name": manifest.name,
        "feature_service": service,
        "row_count": manifest.row_count,
        "feature_count": len(manifest.features),
        "create_time_us": manifest.create_time_us,
        "cutoff_us": manifest.cutoff_us,
        "digest": manifest.digest,
    }


def _document(manifest: Manifest) -> Document:
    return _summary(manifest) | {
        "run_id": manifest.run_id,
        "result": manifest.result,
        "entities": manifest.entities,
        "entity_digest": manifest.entity_digest,
        "kernel_version": manifest.kernel_version,
        "features": [
            {
                "output": origin.output,
                "type": origin.type,
                "feature_view": origin.feature_view,
                "feature": origin.feature,
                "snapshot_id": origin.snapshot_id,
                "transform_digest": origin.transform_digest,
            }
            for origin in manifest.features
        ],
    }
