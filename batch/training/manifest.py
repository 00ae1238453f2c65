"""Manifest of a training set: what it was made of, and the digest that proves it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from headrace.errors import DataLoss, InvalidArgument
from headrace.names import is_word, parse_pinned_ref
from headrace.types import ValueType, parse_type

LAYOUT: Final = 1
NO_SNAPSHOT: Final = -1  # of an on-demand feature: it is computed from others, and nothing of it is stored
FEATURE_COUNT_MAX: Final = 2_000  # of one answer, as for an online read
DOCUMENT_BYTES_MAX: Final = 4 << 20
_DIGEST_HEX_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class FeatureOrigin:
    """One feature of the result: its column, and the version and snapshot that it was read from."""

    output: str
    type: str
    feature_view: str  # with its version
    feature: str
    snapshot_id: int
    transform_digest: str

    @property
    def value_type(self) -> ValueType:
        """Type of the column."""
        return parse_type(self.type)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that decides the values of a training set. File bytes never enter."""

    name: str
    run_id: str
    create_time_us: int
    cutoff_us: int
    kernel_version: str
    entity_digest: str  # SHA-256 of the entity table as the join took it
    features: tuple[FeatureOrigin, ...]
    result: str
    row_count: int
    digest: str  # SHA-256 over values and statuses in the order of the entity rows
    column_hashes: Mapping[str, int]
    feature_service: str = ""  # what was joined, as JSON, so that a rebuild asks no registry; empty if made by hand
    entities: str = ""  # the copy of the entity table
    time_column: str = ""
    inputs: tuple[FeatureOrigin, ...] = ()  # that on-demand features read, and that the result does not hold

    def __post_init__(self) -> None:
        if not is_word(self.name):
            raise _bad("name", f"{self.name!r} is not lower snake case, as in 'delays_2026'")
        if not 1 <= len(self.features) <= FEATURE_COUNT_MAX:
            raise _bad("features", f"{len(self.features)} features; 1 to {FEATURE_COUNT_MAX} are allowed")
        outputs = [origin.output for origin in self.features]
        if sorted(set(outputs)) != sorted(self.column_hashes) or len(set(outputs)) < len(outputs):
            raise _bad("column_hashes", "do not name each feature of the result once")
        for text in (self.digest, self.entity_digest):
            if len(text) != _DIGEST_HEX_LENGTH or set(text) - set("0123456789abcdef"):
                raise _bad("digest", f"{text!r} is no SHA-256 in lower hexadecimal")
        for origin in (*self.features, *self.inputs):
            parse_pinned_ref(origin.feature_view, "features.feature_view")

    @property
    def snapshots(self) -> dict[str, int]:
        """Snapshot of each view version. Raises InvalidArgument where a view was read from two."""
        found: dict[str, int] = {}
        for origin in (*self.features, *self.inputs):
            if origin.snapshot_id == NO_SNAPSHOT:
                continue
            if found.setdefault(origin.feature_view, origin.snapshot_id) != origin.snapshot_id:
                raise _bad("features", f"read {origin.feature_view} from two snapshots")
        return found

    def encode(self) -> bytes:
        """The document: canonical JSON that carries its own SHA-256."""
        body = asdict(self)
        return _canonical({"layout": LAYOUT, "manifest": body, "sha256": _sha256(_canonical(body))}) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Manifest of a document; raises DataLoss where it is cut, changed or of another layout."""
    try:
        if len(data) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"{len(data)} bytes, over {DOCUMENT_BYTES_MAX}")
        document = json.loads(data)
        if document["layout"] != LAYOUT:
            raise ValueError(f"layout {document['layout']!r} is unknown; this version reads {LAYOUT}")
        body: dict[str, Any] = document["manifest"]  # Any: checked by the classes below
        if document["sha256"] != _sha256(_canonical(body)):
            raise ValueError("its checksum differs")
        features = tuple(FeatureOrigin(**origin) for origin in body["features"])
        inputs = tuple(FeatureOrigin(**origin) for origin in body.get("inputs", ()))
        return Manifest(**{**body, "features": features, "inputs": inputs})
    except (ValueError, KeyError, TypeError) as error:
        raise DataLoss(f"the manifest is damaged: {error}", reason="MANIFEST_CORRUPT") from error


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs between two sets, and why it may change values."""

    what: str
    first: str
    second: str
    cause: str


def differences(first: Manifest, second: Manifest) -> Sequence[Difference]:
    """What differs between the inputs of two sets, then which columns of them hold other values."""
    pairs = (
        ("entity rows", first.entity_digest, second.entity_digest, "entities"),
        ("cut-off", str(first.cutoff_us), str(second.cutoff_us), "late events or backfill"),
        ("kernel", first.kernel_version, second.kernel_version, "code"),
        ("row count", str(first.row_count), str(second.row_count), "entities"),
    )
    found = [Difference(*pair) for pair in pairs if pair[1] != pair[2]]
    ours, theirs = ({origin.output: origin for origin in each.features} for each in (first, second))
    for output in sorted(ours.keys() | theirs.keys()):
        if output not in ours or output not in theirs:
            first_side, second_side = ("present" if output in side else "absent" for side in (ours, theirs))
            found.append(Difference(output, first_side, second_side, "feature list"))
            continue
        found += _of_one_feature(ours[output], theirs[output])
        hashes = [each.column_hashes[output] for each in (first, second)]
        if hashes[0] != hashes[1]:
            found.append(Difference(f"{output} values", f"{hashes[0]:016x}", f"{hashes[1]:016x}", "values"))
    return [*found, *_of_inputs(first, second)]


def _of_inputs(first: Manifest, second: Manifest) -> list[Difference]:
    ours, theirs = ({f"{one.feature_view}:{one.feature}": one for one in each.inputs} for each in (first, second))
    pairs = [(name, ours[name].snapshot_id, theirs[name].snapshot_id) for name in sorted(ours.keys() & theirs.keys())]
    return [
        Difference(f"{name} snapshot", str(before), str(after), "late events or backfill")
        for name, before, after in pairs
        if before != after
    ]


def _of_one_feature(ours: FeatureOrigin, theirs: FeatureOrigin) -> list[Difference]:
    pairs = (
        ("version", f"{ours.feature_view}:{ours.feature}", f"{theirs.feature_view}:{theirs.feature}", "version"),
        ("transform", ours.transform_digest, theirs.transform_digest, "code"),
        ("snapshot", str(ours.snapshot_id), str(theirs.snapshot_id), "late events or backfill"),
        ("type", ours.type, theirs.type, "version"),
    )
    return [Difference(f"{ours.output} {what}", *rest) for what, *rest in pairs if rest[0] != rest[1]]


def _canonical(value: Any) -> bytes:  # Any: what JSON holds
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _bad(field: str, problem: str) -> InvalidArgument:
    return InvalidArgument(f"{field} of a training set: {problem}", reason="BAD_MANIFEST", field=field)
