"""Feature services: the pinned lists that models read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace.definitions.base import Definition
from headrace.definitions.checks import check_items, check_text, check_unique, invalid
from headrace.definitions.entities import JOIN_KEY_COUNT_MAX
from headrace.definitions.layout import FEATURE_COUNT_MAX
from headrace.names import NAME_LENGTH_MAX, REFERENCE_LENGTH_MAX, VersionRef, check_word, is_word, parse_version_ref

ENTRY_COUNT_MAX: Final = 200  # views of one answer; each costs a row read per entity
KEY_COLUMN_COUNT_MAX: Final = 64  # of one read, over all entries; core_ext/native/hr_request.h has the same


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One view of a service: `ServiceEntry("flights.ops.origin@v1", ["dep_delay"], {"origin": "dest"}, "dest_")`.

    Without a version, the newest at registration; without features, all of that version. `join_key_mapping` gives the
    request column of a join key where the names differ. `output_prefix` stands before each output name.
    """

    feature_view: str
    features: Sequence[str] = ()
    join_key_mapping: Mapping[str, str] = field(default_factory=dict, hash=False)
    output_prefix: str = ""

    def __post_init__(self) -> None:
        check_text(self.feature_view, "feature_view", REFERENCE_LENGTH_MAX, required=True)
        parse_version_ref(self.feature_view, "feature_view")
        features = check_items(self.features, str, "features", FEATURE_COUNT_MAX)
        for index, feature in enumerate(features):
            check_word(feature, f"features[{index}]", "feature name")
        check_unique(features, "features", "", "feature")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "join_key_mapping", _check_mapping(self.join_key_mapping))
        _check_prefix(self.output_prefix)

    @property
    def view(self) -> VersionRef:
        """The view, with version 0 where none is pinned."""
        return parse_version_ref(self.feature_view, "feature_view")

    def request_column(self, join_key: str) -> str:
        """Name of the request column that carries a join key."""
        return self.join_key_mapping.get(join_key, join_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureService(Definition):
    """Entries in the order of the answer. Every version is frozen."""

    entries: Sequence[ServiceEntry]

    def __post_init__(self) -> None:
        Definition.__post_init__(self)
        entries = check_items(self.entries, ServiceEntry, "entries", ENTRY_COUNT_MAX, count_min=1)
        object.__setattr__(self, "entries", entries)


def _check_mapping(mapping: object) -> dict[str, str]:
    if not isinstance(mapping, Mapping):
        raise invalid("join_key_mapping must map text to text", "WRONG_TYPE", "join_key_mapping")
    if len(mapping) > JOIN_KEY_COUNT_MAX:
        raise invalid(
            f"join_key_mapping has {len(mapping)} entries; an entity has at most {JOIN_KEY_COUNT_MAX} join keys",
            "TOO_MANY",
            "join_key_mapping",
        )
    for key, column in mapping.items():
        check_word(check_text(key, "join_key_mapping", NAME_LENGTH_MAX), "join_key_mapping", "join key")
        where = f"join_key_mapping.{key}"
        check_word(check_text(column, where, NAME_LENGTH_MAX), where, "request column")
    return dict(sorted(mapping.items()))


def _check_prefix(prefix: object) -> None:
    text = check_text(prefix, "output_prefix", NAME_LENGTH_MAX)
    if text and not is_word(text.removesuffix("_")):
        raise invalid(
            f"output_prefix {text!r} is not lower snake case; write it like 'origin_'",
            "INVALID_NAME",
            "output_prefix",
            output_prefix=text,
        )
