"""Pages of a listing, with tokens that hold a position and refuse to be used for another listing."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from headrace.definitions.registered import Registered
from headrace.errors import InvalidArgument
from headrace.names import NAME_LENGTH_MAX, VersionRef

PAGE_SIZE_DEFAULT: Final = 100  # of the contract
PAGE_SIZE_MAX: Final = 1_000  # of the contract
TOKEN_LENGTH_MAX: Final = 1_024  # characters; a token holds one name

_Item = TypeVar("_Item", bound=Registered)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a caller asks for, as the contract words it."""

    page_size: int = 0
    page_token: str = ""
    name_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[_Item]):
    """Items in order, and the token of the next page, empty at the end."""

    items: tuple[_Item, ...]
    next_page_token: str


def page_of(items: Iterable[_Item], listing: str, request: PageRequest) -> Page[_Item]:
    """The page asked for of items that are in the order of their names and versions.

    A token holds the last item given, so items added or retired between pages are neither repeated nor skipped.
    """
    size = page_size_of(request.page_size)
    prefix = _prefix(request.name_prefix)
    scope = scope_of(f"{listing}\n{prefix}")
    after = _read_token(request.page_token, scope)
    matching = [item for item in items if item.ref.name.startswith(prefix) and (after is None or item.ref > after)]
    taken = tuple(matching[:size])
    return Page(taken, write_token(scope, taken[-1].ref.name, taken[-1].ref.version) if len(matching) > size else "")


def page_size_of(page_size: int) -> int:
    """Size of a page; raises InvalidArgument for a negative one."""
    if page_size < 0:
        raise InvalidArgument(
            f"page_size is {page_size}; it must not be negative (0 is the default of {PAGE_SIZE_DEFAULT})",
            reason="OUT_OF_RANGE",
            field="page_size",
            metadata={"page_size": str(page_size)},
        )
    return min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def _prefix(prefix: str) -> str:
    if len(prefix) > NAME_LENGTH_MAX:
        raise InvalidArgument(
            f"name_prefix has {len(prefix)} characters; a name has at most {NAME_LENGTH_MAX}",
            reason="TOO_LONG",
            field="name_prefix",
        )
    return prefix


def scope_of(question: str) -> str:
    """What ties tokens to a question."""
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_token(scope: str, *values: str | int) -> str:
    """Token of the next page: values that say where it begins."""
    body = json.dumps([scope, *values], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode("ascii")


def token_values(token: str, scope: str, length_max: int) -> list[Any]:  # Any: JSON values, for the caller to check
    """Values of a token; to be called, and what it gives checked, inside `refusing_tokens`."""
    if len(token) > length_max:
        raise ValueError("too long")
    values: list[Any]
    held, *values = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    if held != scope:
        raise ValueError("of another question")
    return values


@contextmanager
def refusing_tokens(origin: str) -> Iterator[None]:
    """Turns what is wrong with a token into InvalidArgument; `origin` is what the caller should have it from."""
    try:
        yield
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise InvalidArgument(
            f"page_token is not one that {origin} returned; start again without it",
            reason="INVALID_PAGE_TOKEN",
            field="page_token",
        ) from error


def _read_token(token: str, scope: str) -> VersionRef | None:
    if not token:
        return None
    with refusing_tokens("this listing with this name_prefix"):
        name, version = token_values(token, scope, TOKEN_LENGTH_MAX)
        if type(name) is not str or type(version) is not int:
            raise ValueError("of another listing")
    return VersionRef(name, version)
