"""Entities: join key sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.definitions.base import Definition
from headrace.definitions.checks import check_items, check_text, check_type, check_unique, invalid
from headrace.names import NAME_LENGTH_MAX, check_word
from headrace.types import ENTITY_KEY_SCALARS, Shape, ValueType

JOIN_KEY_COUNT_MAX: Final = 8  # parts of an entity key, docs/decisions/0001-key-bytes.md
EVENT_TIME: Final = "event_time"  # column of every write, so neither a join key nor a feature may take its name


@dataclass(frozen=True, slots=True, init=False)
class EntityKey:
    """One part of an entity's key, of type i64, string or bytes: `EntityKey("origin", "string")`."""

    name: str
    type: ValueType

    def __init__(self, name: str, type: ValueType | str) -> None:  # noqa: A002 - the word of the glossary
        check_text(name, "name", 2 * NAME_LENGTH_MAX, required=True)
        check_word(name, "name", "join key")
        check_not_reserved(name, "join key")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "type", _key_type(name, check_type(type)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity(Definition):
    """Join key set, in the order of the canonical key bytes. Its keys never change."""

    join_keys: Sequence[EntityKey]

    def __post_init__(self) -> None:
        Definition.__post_init__(self)
        keys = check_items(self.join_keys, EntityKey, "join_keys", JOIN_KEY_COUNT_MAX, count_min=1)
        check_unique((key.name for key in keys), "join_keys", ".name", "join key")
        object.__setattr__(self, "join_keys", keys)


def check_not_reserved(name: str, what: str) -> None:
    """Raises RESERVED_NAME for the name of the event time column."""
    if name == EVENT_TIME:
        raise invalid(
            f"{what} {name!r} is the name of the event time column of every write; choose another",
            "RESERVED_NAME",
            "name",
            name=name,
        )


def _key_type(name: str, key_type: ValueType) -> ValueType:
    if key_type.shape is not Shape.SINGLE or key_type.scalar not in ENTITY_KEY_SCALARS:
        raise invalid(
            f"join key {name!r} is {key_type}; keys are i64, string or bytes", "WRONG_TYPE", "type", type=key_type
        )
    return key_type
