"""Checks that every definition shares, with the path of the bad field in each error."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from difflib import get_close_matches
from typing import Final, TypeVar

from headrace.errors import InvalidArgument
from headrace.types import ValueType, parse_type

DESCRIPTION_LENGTH_MAX: Final = 4_096  # characters; a page of text, so that listings stay small
TAG_COUNT_MAX: Final = 64  # tags are labels, not storage
TAG_KEY_LENGTH_MAX: Final = 63  # as Kubernetes labels, so that tags can be carried over
TAG_VALUE_LENGTH_MAX: Final = 255
DURATION_MAX: Final = timedelta(days=36_500)  # keeps now minus a duration inside the range of dates

_Item = TypeVar("_Item")
_MICROSECOND: Final = timedelta(microseconds=1)


@contextmanager
def located(path: str) -> Iterator[None]:
    """Puts a path before the field of an InvalidArgument that is raised inside: `features[0]` + `type`."""
    try:
        yield
    except InvalidArgument as error:
        joint = "" if not error.field or error.field.startswith("[") else "."
        raise InvalidArgument(
            error.message,
            reason=error.reason,
            field=f"{path}{joint}{error.field}",
            metadata=error.metadata,
        ) from error


def invalid(message: str, reason: str, field: str, **metadata: object) -> InvalidArgument:
    """An InvalidArgument whose metadata are written as text."""
    return InvalidArgument(
        message, reason=reason, field=field, metadata={key: str(value) for key, value in metadata.items()}
    )


def check_text(value: object, field: str, length_max: int, *, required: bool = False) -> str:
    """The value where it is text that UTF-8 can carry, within a length."""
    if not isinstance(value, str):
        raise invalid(f"{field} must be text, not {type(value).__name__}", "WRONG_TYPE", field)
    if required and not value:
        raise invalid(f"{field} is required and empty", "REQUIRED", field)
    if len(value) > length_max:
        raise invalid(f"{field} has {len(value)} characters; at most {length_max} are allowed", "TOO_LONG", field)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise invalid(f"{field} holds half of a surrogate pair, which is not text", "INVALID_TEXT", field)
    return value


def check_tags(tags: object) -> dict[str, str]:
    """A copy of the tags in the order of their keys."""
    if not isinstance(tags, Mapping):
        raise invalid("tags must map text to text", "WRONG_TYPE", "tags")
    if len(tags) > TAG_COUNT_MAX:
        raise invalid(f"tags has {len(tags)} entries; at most {TAG_COUNT_MAX} are allowed", "TOO_MANY", "tags")
    for key, value in tags.items():
        check_text(key, "tags", TAG_KEY_LENGTH_MAX, required=True)
        check_text(value, f"tags.{key}", TAG_VALUE_LENGTH_MAX)
    return dict(sorted(tags.items()))


def check_type(value: object, field: str = "type") -> ValueType:
    """A type given as ValueType or as text."""
    if isinstance(value, ValueType):
        return value
    if not isinstance(value, str):
        raise invalid(f"{field} must be a type such as 'f32', not {type(value).__name__}", "WRONG_TYPE", field)
    try:
        return parse_type(value)
    except ValueError as error:
        raise invalid(str(error), "UNKNOWN_TYPE", field, type=value[:100]) from error


def check_duration(value: object, field: str, *, zero: bool = False) -> timedelta:
    """A positive duration of whole microseconds up to 100 years; `zero` allows none."""
    if not isinstance(value, timedelta):
        raise invalid(f"{field} must be a timedelta, not {type(value).__name__}", "WRONG_TYPE", field)
    least = timedelta(0) if zero else _MICROSECOND
    if not least <= value <= DURATION_MAX:
        raise invalid(
            f"{field} is {value}; it must lie between {least} and {DURATION_MAX}", "OUT_OF_RANGE", field, value=value
        )
    return value


def check_items(
    values: object, kind: type[_Item], field: str, count_max: int, *, count_min: int = 0
) -> tuple[_Item, ...]:
    """A sequence as a tuple, where every item is of a kind and their number is within bounds."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise invalid(f"{field} must be a list of {kind.__name__}", "WRONG_TYPE", field)
    if not count_min <= len(values) <= count_max:
        raise invalid(
            f"{field} has {len(values)} items; {count_min} to {count_max} are allowed",
            "REQUIRED" if not values else "TOO_MANY",
            field,
            count=len(values),
        )
    for index, value in enumerate(values):
        if not isinstance(value, kind):
            where = f"{field}[{index}]"
            raise invalid(f"{where} must be {kind.__name__}, not {type(value).__name__}", "WRONG_TYPE", where)
    return tuple(values)


def check_unique(names: Iterable[str], field: str, part: str, what: str) -> None:
    """Raises DUPLICATE_NAME at the second use of a name; `part` is the path below an item, `.name` or empty."""
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            raise invalid(
                f"{what} {name!r} stands twice, at {field}[{seen[name]}] and {field}[{index}]; rename one",
                "DUPLICATE_NAME",
                f"{field}[{index}]{part}",
                name=name,
            )
        seen[name] = index


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence part such as `; did you mean 'dep_delay'?`, or nothing where no known name is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
