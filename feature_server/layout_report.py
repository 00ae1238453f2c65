"""What co-located rows would save: `python -m feature_server.layout_report --data DIR --service SERVICE`.

Reads the store beside a running server, builds both layouts from sampled rows in a scratch folder, and prints one JSON
object. Changes nothing, unless --apply is given: then no server may run on the store.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from core_ext.keys import decode_key, storage_key
from core_ext.request_core import RequestCore
from core_ext.row_codec import check_row, decode_row
from core_ext.row_table import RowTable
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.co_location import (
    PACKED_HANDLE,
    Candidate,
    grouping,
    pack,
    packed_schema,
    plan_apart,
    plan_packed,
)
from feature_server.domain.read_counts import COUNTS_NAME, ReadCounts, decode_counts
from feature_server.domain.selection import Prepared
from feature_server.layout_apply import Move, apply, trial
from feature_server.rpc.registry_client import read_copy
from feature_server.storage.files import read_file
from feature_server.storage.layout_trial import Figures, Layout, compare
from feature_server.storage.packed_rows import Packing
from feature_server.storage.samples import Entity, sample
from headrace.client.entities import encode_entities
from headrace.client.wire import delimited
from headrace.definitions.registered import RegistryState, State
from headrace.errors import FailedPrecondition, HeadraceError, InternalError, NotFound
from headrace.serving.logging import EventLog
from headrace.serving.process import EXIT_CLEAN, EXIT_REFUSED

ENTITIES: Final = 2_000
ENTITIES_MIN: Final = 20  # fewer rows would not tell sizes
CHECKED_ENTITIES: Final = 50
REGISTRY_COPY_NAME: Final = "registry"
HANDLE_FIELD: Final = 2  # of GetOnlineFeaturesRequest
TOMBSTONE: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; a refusal is one JSON object on the error output."""
    parser = argparse.ArgumentParser(prog="layout_report", description="Measures co-located rows of one service.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the feature server's store")
    parser.add_argument("--service", required=True, help="feature service, team.domain.name or with @vN")
    parser.add_argument("--entities", type=int, default=ENTITIES, help="entities to sample")
    parser.add_argument("--apply", action="store_true", help="pack what pays by the counts of the server")
    parser.add_argument("--all", action="store_true", help="with --apply, pack every candidate whatever the counts say")
    options = parser.parse_args(arguments)
    try:
        found = report(options.data, options.service, options.entities)
        if options.apply:
            found |= {"applied": _applied(options.data, found, options.entities, is_all=options.all)}
        sys.stdout.write(json.dumps(found) + "\n")
    except HeadraceError as error:
        fields = {"code": error.code, "reason": error.reason, "field": error.field, "message": error.message}
        sys.stderr.write(json.dumps({**fields, "metadata": dict(error.metadata)}) + "\n")
        return EXIT_REFUSED
    return EXIT_CLEAN


def report(folder: Path, service: str, entity_count: int) -> dict[str, Any]:
    """Every candidate with both layouts' figures, and every view that stays apart."""
    state = read_copy(folder / REGISTRY_COPY_NAME, read_file)
    if state is None:
        raise NotFound(
            f"{folder} holds no registry; name the data folder of a platform that has run with --data",
            reason="NO_REGISTRY",
            field="data",
            metadata={"folder": str(folder)},
        )
    catalogue = Catalogue(RequestCore(RowTable(1 << 20), 1), EventLog("layout_report", time.time, io.StringIO()))
    catalogue.publish(state)
    asked = catalogue.service(service)
    counts = decode_counts(read_file(folder / COUNTS_NAME))
    grouped = grouping(asked.feature_service, _read(_active(state, catalogue), counts, asked.feature_service))
    return {
        "service": asked.feature_service,
        "candidates": [
            _measured(folder, candidate, entity_count, _unused(state)) | _counted(candidate, counts)
            for candidate in grouped.candidates
        ],
        "apart": [asdict(one) for one in grouped.apart],
    }


def _active(state: RegistryState, catalogue: Catalogue) -> dict[str, Prepared]:
    found = {}
    for versions in state.services.values():
        for record in versions:
            if record.state is State.ACTIVE:
                try:
                    found[str(record.ref)] = catalogue.service(str(record.ref))
                except HeadraceError:
                    continue  # not served here, so it reads nothing
    return found


def _read(services: Mapping[str, Prepared], counts: ReadCounts, asked: str) -> dict[str, Prepared]:
    """Services that somebody reads, as far as the server has counted, and the one that is asked about."""
    if not any(counts.read.values()):
        return dict(services)
    return {name: prepared for name, prepared in services.items() if name == asked or counts.read.get(name)}


def _counted(candidate: Candidate, counts: ReadCounts) -> dict[str, Any]:
    """Rows that the server has counted: read by each service, and fetches of an entity per write of a view."""
    ids = [str(view.view_id) for view in candidate.views]
    fetched = sum(counts.fetched.get(one, 0) for one in ids) / len(ids)
    written = sum(counts.written.get(one, 0) for one in ids)
    return {
        "view_ids": [view.view_id for view in candidate.views],
        "entity_id": candidate.entity.entity_id,
        "rows_read": {name: counts.read.get(name, 0) for name in candidate.services},
        "rows_fetched": round(fetched),
        "rows_written": written,
        "fetches_per_write": fetched / written if written else None,
    }


def pays(candidate: Mapping[str, Any]) -> bool:
    """Whether the server fetches more often per write than it takes for a packed row to be cheaper."""
    least = candidate["fetches_per_write_to_pay"]
    if least is None or not candidate["rows_fetched"]:
        return False
    return candidate["fetches_per_write"] is None or bool(candidate["fetches_per_write"] > least)


def is_faster(packing: Packing, entities: Mapping[bytes, Entity]) -> bool:
    """Whether rows that lie together, each whole, are fetched faster: the packed row of the report saves more."""
    apart_us, together_us = trial(packing, entities)
    return together_us < apart_us


def _applied(folder: Path, found: Mapping[str, Any], entity_count: int, *, is_all: bool) -> dict[str, Any]:
    chosen, moves = [], []
    for candidate in found["candidates"]:
        packing = Packing(candidate["entity_id"], tuple(sorted(candidate["view_ids"])))
        entities = sample(folder, packing.entity_id, packing.view_ids, entity_count)
        if is_all or (pays(candidate) and is_faster(packing, entities)):
            chosen.append(candidate)
            moves.append(Move(candidate["entity"], packing, sorted(entities)))
    kept = [candidate["entity"] for candidate in found["candidates"] if candidate not in chosen]
    return {"kept_apart": kept} | (apply(folder, moves) if moves else {})


def _unused(state: RegistryState) -> int:
    return state.highest_id + 1


def _measured(folder: Path, candidate: Candidate, entity_count: int, view_id: int) -> dict[str, Any]:
    ids = [view.view_id for view in candidate.views]
    found = sample(folder, candidate.entity.entity_id, ids, entity_count)
    whole = {key: rows for key, rows in found.items() if _is_whole(rows, ids)}
    out: dict[str, Any] = {
        "entity": candidate.entity.name,
        "views": [view.ref for view in candidate.views],
        "services": list(candidate.services),
        "entities_sampled": len(found),
        "entities_with_every_view": len(whole),
    }
    if len(whole) < ENTITIES_MIN:
        raise FailedPrecondition(
            f"only {len(whole)} of {len(found)} sampled entities of {candidate.entity.name!r} have a row of every view "
            f"({', '.join(out['views'])}); write rows of at least {ENTITIES_MIN} entities, then ask again",
            reason="TOO_FEW_ROWS",
            field="service",
            metadata={"count": str(len(whole)), "entity": candidate.entity.name},
        )
    figures = _compared(candidate, whole, view_id)
    pays = fetches_that_pay(figures["apart"], figures["packed"])
    return out | {name: asdict(one) for name, one in figures.items()} | {"fetches_per_write_to_pay": pays}


def fetches_that_pay(apart: Figures, packed: Figures) -> float | None:
    """Fetches from disk per write of one view from which packing saves CPU; None where it never does."""
    saved_us, cost_us = apart.miss_us - packed.miss_us, packed.write_us - apart.write_us
    return max(0.0, cost_us / saved_us) if saved_us > 0 else None


def _is_whole(rows: Entity, ids: Sequence[int]) -> bool:
    return len(rows) == len(ids) and not any(check_row(row).flags & TOMBSTONE for row in rows.values())


def _compared(candidate: Candidate, whole: Mapping[bytes, Entity], view_id: int) -> dict[str, Figures]:
    keys = sorted(whole)
    ids = [view.view_id for view in candidate.views]
    packed = pack(candidate, [[whole[key][one] for key in keys] for one in ids])
    _check_packed(candidate, whole, dict(zip(keys, packed, strict=True)))
    entity_id = candidate.entity.entity_id
    apart_plan, packed_plan = plan_apart(candidate), plan_packed(candidate, view_id)
    layouts = {
        "apart": Layout(
            apart_plan,
            [[storage_key(entity_id, key, one) for one in ids] for key in keys],
            [[whole[key][one] for one in ids] for key in keys],
        ),
        "packed": Layout(
            packed_plan, [[storage_key(entity_id, key, view_id)] for key in keys], [[row] for row in packed]
        ),
    }
    handles = {"apart": apart_plan.handle, "packed": PACKED_HANDLE}
    requests = {name: [_request(handle, candidate, key) for key in keys] for name, handle in handles.items()}
    with tempfile.TemporaryDirectory(prefix="headrace-layout-") as scratch:
        return compare(Path(scratch), layouts, requests, time.time_ns() // 1_000)


def _check_packed(candidate: Candidate, whole: Mapping[bytes, Entity], packed: Mapping[bytes, bytes]) -> None:
    """Packed rows hold what the rows held: checked for the first entities of the sample."""
    schema = packed_schema(candidate)
    for key in list(packed)[:CHECKED_ENTITIES]:
        _, values = decode_row(schema, packed[key])
        wanted = [
            one for view in candidate.views for one in decode_row(view.stored_schema, whole[key][view.view_id])[1]
        ]
        if repr(values[: len(wanted)]) != repr(wanted):  # by their text, as NaN equals nothing
            raise InternalError(
                "a packed row holds other values than the rows that it is made of", reason="LAYOUT_TRIAL"
            )


def _request(handle: bytes, candidate: Candidate, key: bytes) -> bytes:
    columns = {name: [part] for name, part in zip(candidate.key_columns, decode_key(key), strict=True)}
    types = dict(zip(candidate.key_columns, candidate.entity.key_scalars, strict=True))
    return delimited(HANDLE_FIELD, handle) + encode_entities(columns, types)


if __name__ == "__main__":
    sys.exit(main())
