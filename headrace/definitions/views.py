"""Feature views: versioned groups of features of one entity from one transform."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Final

from headrace.definitions.base import Definition
from headrace.definitions.checks import (
    DESCRIPTION_LENGTH_MAX,
    check_duration,
    check_items,
    check_text,
    check_type,
    check_unique,
    invalid,
)
from headrace.definitions.entities import check_not_reserved
from headrace.definitions.functions import FUNCTION_COUNT_MAX, Function
from headrace.definitions.layout import FEATURE_COUNT_MAX, check_row_size
from headrace.definitions.services import ServiceEntry
from headrace.definitions.transforms import Derived, Latest, Transform, Window, check_expression
from headrace.definitions.values import PlainValue, check_value
from headrace.names import NAME_LENGTH_MAX, check_word, parse_plain_name
from headrace.types import ValueType

LOOKUP_COUNT_MAX: Final = 16  # of one view; each costs every event a row read


class Fallback(IntEnum):
    """What is served when a value is not present; the numbers are those of the contracts."""

    NONE = 1
    DEFAULT = 2
    EXPIRED_VALUE = 3


@dataclass(frozen=True, slots=True, init=False)
class Feature:
    """One column of a view: `Feature("dep_delay", "f32", latest("dep_delay"), default=0.0)`.

    `default` is a plain Python value of exactly the declared type, None for no default; a float for f32 is rounded
    to the nearest f32 where it is served.
    """

    name: str
    type: ValueType
    transform: Transform
    default: PlainValue | None
    description: str

    def __init__(
        self,
        name: str,
        type: ValueType | str,  # noqa: A002 - the word of the glossary
        transform: Transform,
        *,
        default: object = None,
        description: str = "",
    ) -> None:
        check_text(name, "name", 2 * NAME_LENGTH_MAX, required=True)
        check_word(name, "name", "feature name")
        check_not_reserved(name, "feature name")
        given: object = transform
        if not isinstance(given, Latest | Window | Derived):
            known = "latest(column), window(aggregate, …), session(aggregate, …) or derived(expression)"
            raise invalid(f"transform of feature {name!r} must be {known}", "WRONG_TYPE", "transform", feature=name)
        value_type = check_type(type)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "type", value_type)
        object.__setattr__(self, "transform", transform)
        object.__setattr__(self, "default", None if default is None else check_value(default, value_type))
        object.__setattr__(self, "description", check_text(description, "description", DESCRIPTION_LENGTH_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureView(Definition):
    """Features of one entity from the events of one source for which `filter` is true; an empty one takes all.

    `ttl` counts from event time, None never expires.

    `freshness_sla` is the age from which a value carries STALE, None sets no limit; it alone may change in a version.

    `offline=False` keeps its rows out of the offline store: they have no history, no training sets and no skew runs.

    `lookups` give each event features of other views as of its event time, named as columns of the source are:
    `ServiceEntry("shop.items.catalog@v1", ["price"], {"item_id": "item"}, "item_")` reads the event's column `item` as
    the join key `item_id`, and gives it the column `item_price`.

    `functions` give each event columns that Python computes of those.
    """

    entity: str
    source: str
    features: Sequence[Feature]
    ttl: timedelta | None = None
    fallback: Fallback = Fallback.NONE
    freshness_sla: timedelta | None = None
    filter: str = ""
    offline: bool = True
    lookups: Sequence[ServiceEntry] = ()
    functions: Sequence[Function] = ()

    def __post_init__(self) -> None:
        Definition.__post_init__(self)
        for field, value in (("entity", self.entity), ("source", self.source)):
            parse_plain_name(check_text(value, field, 4 * NAME_LENGTH_MAX, required=True), field)
        features = check_items(self.features, Feature, "features", FEATURE_COUNT_MAX, count_min=1)
        check_unique((feature.name for feature in features), "features", ".name", "feature")
        object.__setattr__(self, "features", features)
        for field, duration in (("ttl", self.ttl), ("freshness_sla", self.freshness_sla)):
            if duration is not None:
                check_duration(duration, field)
        if not isinstance(self.fallback, Fallback):
            raise invalid("fallback must be a Fallback", "WRONG_TYPE", "fallback")
        if not isinstance(self.offline, bool):
            raise invalid("offline must be true or false", "WRONG_TYPE", "offline")
        if self.filter != "":
            check_expression(self.filter, "filter")
        object.__setattr__(self, "lookups", check_items(self.lookups, ServiceEntry, "lookups", LOOKUP_COUNT_MAX))
        functions = check_items(self.functions, Function, "functions", FUNCTION_COUNT_MAX)
        check_unique((one.name for one in functions), "functions", ".name", "function column")
        object.__setattr__(self, "functions", functions)
        check_row_size(self.name, [feature.type for feature in features])

    @property
    def is_plain(self) -> bool:
        """Whether a row of the source is a row of the view: latest columns alone, no filter, and nothing added."""
        is_as_given = not (self.filter or self.lookups or self.functions)
        return is_as_given and all(isinstance(feature.transform, Latest) for feature in self.features)

    def feature(self, name: str) -> Feature | None:
        """The feature of a name, or None."""
        return next((feature for feature in self.features if feature.name == name), None)
