"""Golden rows, keys and states: read from descriptions, written if new: `python -m tests.unit.core_ext.golden` adds."""

import json
import sys
from pathlib import Path
from typing import Any

from core_ext.twin import keys as twin_keys
from core_ext.twin import row_codec as twin
from core_ext.twin import states as twin_states
from headrace.types import parse_type

FOLDER = Path(__file__).parents[2] / "data" / "golden"
ENTITY_ID, VIEW_ID = 258, 66_051  # of the storage keys; every byte differs
HEADER_FIELDS = ("source_id", "event_time_us", "write_time_us", "available_time_us", "offset", "partition")


def described(kind: str) -> list[dict[str, Any]]:
    """Descriptions of all golden rows or keys."""
    cases: list[dict[str, Any]] = json.loads((FOLDER / f"{kind}.json").read_text(encoding="ascii"))
    return cases


def row_path(case: dict[str, Any]) -> Path:
    """File of a golden row."""
    return FOLDER / "rows" / f"{case['name']}.bin"


def types_of(case: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Column types of a row, element types of a key's parts in their first items."""
    types = [parse_type(text) for text in case["types"]]
    return [(int(value_type.scalar), int(value_type.shape), value_type.list_size) for value_type in types]


def plain(value: Any) -> Any:
    """Python value of a described one: {"hex": ...} is bytes, {"float": ...} no finite number."""
    if isinstance(value, list):
        return [plain(element) for element in value]
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else float(value["float"])
    return value


def header_of(case: dict[str, Any]) -> twin.RowHeader:
    """Header of a golden row, without its flags."""
    return twin.RowHeader(0, case["schema_id"], **{name: case[name] for name in HEADER_FIELDS})


def row_by_twin(case: dict[str, Any]) -> bytes:
    """The row that the twin makes of a description."""
    if case["tombstone"]:
        names = [name for name in HEADER_FIELDS if name != "available_time_us"]
        return twin.encode_tombstone(case["schema_id"], **{name: case[name] for name in names})
    schema = twin.schema_of(case["schema_id"], types_of(case))
    return twin.encode_row(schema, plain(case["values"]), header_of(case))


def key_by_twin(case: dict[str, Any]) -> dict[str, Any]:
    """What the twin makes of a described key."""
    key = twin_keys.encode_key([scalar for scalar, _, _ in types_of(case)], plain(case["values"]))
    slot = twin_keys.slot_of_key(key)
    return {
        "key": key.hex(),
        "storage_key": twin_keys.storage_key(ENTITY_ID, key, VIEW_ID).hex(),
        "slot": slot,
        "shard_of_8": twin_keys.shard_of_slot(slot, 8),
        "shard_of_64": twin_keys.shard_of_slot(slot, 64),
    }


def spec_of_case(case: dict[str, Any]) -> twin_states.Spec:
    """Specification of a golden window state."""
    scalars = [int(parse_type(case[name]).scalar) if case[name] else 0 for name in ("type", "type2")]
    return twin_states.Spec(twin_states.Kind[case["kind"]], scalars[0], scalars[1], case["parameter"])


def events_of_case(case: dict[str, Any]) -> list[twin_states.Event]:
    """Events that a golden window state has taken."""
    if "range" in case:
        return [twin_states.Event(value) for value in range(case["range"])]
    return [twin_states.Event(*plain(event)) for event in case["events"]]


def add_missing() -> int:
    """Writes golden bytes that are described and absent; those that exist never change. Returns how many."""
    added = 0
    for case in described("rows"):
        if not row_path(case).exists():
            row_path(case).write_bytes(row_by_twin(case))
            added += 1
    keys = described("keys")
    for case in keys:
        if "key" not in case:
            case.update(key_by_twin(case))
            added += 1
    states = described("states")
    for case in states:
        if "bytes" not in case:
            case["bytes"] = twin_states.encode(spec_of_case(case), events_of_case(case)).hex()
            added += 1
    for kind, cases in (("keys", keys), ("states", states)):
        lines = ",\n".join("  " + json.dumps(case) for case in cases)
        (FOLDER / f"{kind}.json").write_text(f"[\n{lines}\n]\n", encoding="ascii")
    return added


if __name__ == "__main__":
    sys.stdout.write(f"{add_missing()} golden rows, keys and states added\n")
