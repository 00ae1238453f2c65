"""On-demand views: features computed when they are read, over other features and over data of the request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from headrace.definitions.base import Definition
from headrace.definitions.checks import check_items, check_text, check_type, check_unique, invalid, located
from headrace.definitions.entities import check_not_reserved
from headrace.definitions.layout import FEATURE_COUNT_MAX
from headrace.definitions.services import ENTRY_COUNT_MAX, ServiceEntry
from headrace.definitions.transforms import Derived
from headrace.definitions.views import Fallback, Feature
from headrace.names import NAME_LENGTH_MAX, check_word
from headrace.types import Shape, ValueType

REQUEST_FIELD_COUNT_MAX: Final = 256  # of one view and of one read; core_ext/native/hr_request_data.h has the same


@dataclass(frozen=True, slots=True)
class RequestSource:
    """Data that the caller sends with a read: `RequestSource("trip_request", {"distance_km": "f64"})`.

    Types are given as text or as ValueType; each is a single value.
    """

    name: str
    fields: Mapping[str, ValueType] = field(hash=False)

    def __init__(self, name: str, fields: Mapping[str, ValueType | str]) -> None:
        check_text(name, "name", 2 * NAME_LENGTH_MAX, required=True)
        check_word(name, "name", "request source")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "fields", _checked_fields(name, fields))


OnDemandSource = ServiceEntry | RequestSource


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class OnDemandView(Definition):
    """Features whose expressions read columns of the sources: features of views, and fields of the request.

    A source is a view version, as text or as a `ServiceEntry` (whose `output_prefix` stands before the names of its
    features and whose `join_key_mapping` gives the request column of a join key), another on-demand view in the same
    form, or a `RequestSource`. Without a version, the newest at registration; without features, all of that version.
    The join keys are those of the sources together.
    """

    sources: Sequence[OnDemandSource]
    features: Sequence[Feature]
    fallback: Fallback

    def __init__(
        self,
        name: str,
        *,
        owner: str,
        sources: Sequence[OnDemandSource | str],
        features: Sequence[Feature],
        fallback: Fallback = Fallback.NONE,
        description: str = "",
        tags: Mapping[str, str] = MappingProxyType({}),
        etag: str = "",
    ) -> None:
        common = {"name": name, "owner": owner, "description": description, "tags": tags, "etag": etag}
        for part, value in (common | {"features": features, "fallback": fallback}).items():
            object.__setattr__(self, part, value)
        Definition.__post_init__(self)
        object.__setattr__(self, "sources", _checked_sources(sources))
        self._check()

    def _check(self) -> None:
        if not self.entries:
            message = "an on-demand view reads at least one view: rows are named by its join keys"
            raise invalid(message, "REQUIRED", "sources")
        features = check_items(self.features, Feature, "features", FEATURE_COUNT_MAX, count_min=1)
        check_unique((feature.name for feature in features), "features", ".name", "feature")
        for index, feature in enumerate(features):
            _check_feature(feature, f"features[{index}]")
        object.__setattr__(self, "features", features)
        if not isinstance(self.fallback, Fallback) or self.fallback is Fallback.EXPIRED_VALUE:
            message = "fallback of an on-demand view is none or default: nothing is stored that could expire"
            raise invalid(message, "WRONG_TYPE", "fallback")

    @property
    def entries(self) -> tuple[ServiceEntry, ...]:
        """Sources that are views."""
        return tuple(source for source in self.sources if isinstance(source, ServiceEntry))

    def feature(self, name: str) -> Feature | None:
        """The feature of a name, or None."""
        return next((feature for feature in self.features if feature.name == name), None)


def _checked_sources(sources: object) -> tuple[OnDemandSource, ...]:
    given = check_items(sources, object, "sources", ENTRY_COUNT_MAX, count_min=1)
    made: list[OnDemandSource] = []
    for index, source in enumerate(given):
        if isinstance(source, str):
            with located(f"sources[{index}]"):
                made.append(ServiceEntry(source))
        elif isinstance(source, ServiceEntry | RequestSource):
            made.append(source)
        else:
            known = "a view version as text, a ServiceEntry or a RequestSource"
            message = f"sources[{index}] must be {known}, not {type(source).__name__}"
            raise invalid(message, "WRONG_TYPE", f"sources[{index}]")
    return tuple(made)


def _check_feature(feature: Feature, path: str) -> None:
    if not isinstance(feature.transform, Derived):
        message = f"feature {feature.name!r} of an on-demand view is computed: write derived(expression)"
        raise invalid(message, "WRONG_TYPE", f"{path}.transform", feature=feature.name)


def _checked_fields(name: str, fields: object) -> dict[str, ValueType]:
    if not isinstance(fields, Mapping):
        raise invalid("fields must map names to types", "WRONG_TYPE", "fields")
    if not 1 <= len(fields) <= REQUEST_FIELD_COUNT_MAX:
        message = f"request source {name!r} has {len(fields)} fields; 1 to {REQUEST_FIELD_COUNT_MAX} are allowed"
        raise invalid(message, "TOO_MANY" if fields else "REQUIRED", "fields", count=len(fields))
    return {word: _field_type(word, given) for word, given in fields.items()}


def _field_type(name: object, given: object) -> ValueType:
    word = check_text(name, "fields", 2 * NAME_LENGTH_MAX, required=True)
    path = f"fields.{word[:100]}"
    with located(path):
        check_word(word, "", "request field")
        check_not_reserved(word, "request field")
        found = check_type(given)
    if found.shape is not Shape.SINGLE:
        message = f"request field {word!r} is {found}; expressions read single values: send its parts as fields"
        raise invalid(message, "WRONG_TYPE", path, type=found)
    return found
