"""Page tokens of lineage: a position in an answer, and the moment at which it stays what it was."""

import base64
import binascii
import hashlib
import json
from typing import Final

from control_plane.domain.lineage.mirror import Moment
from headrace.errors import InvalidArgument

TOKEN_LENGTH_MAX: Final = 256
PAGE_SIZE_DEFAULT: Final = 100  # of the contract
PAGE_SIZE_MAX: Final = 1_000  # of the contract


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


def write_token(question: tuple[object, ...], moment: Moment, position: int) -> str:
    """Token of the next page of a question."""
    body = json.dumps([_scope(question), moment.valid_us, moment.known_us, position], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode("ascii")


def read_token(question: tuple[object, ...], token: str) -> tuple[Moment, int]:
    """Moment and position of a token; raises InvalidArgument where it is of another question."""
    try:
        if len(token) > TOKEN_LENGTH_MAX:
            raise ValueError("too long")
        scope, *numbers = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        valid_us, known_us, position = numbers
        if scope != _scope(question) or any(type(number) is not int for number in numbers) or position < 0:
            raise ValueError("of another question")
        if not all(-(2**63) <= number < 2**63 for number in numbers):
            raise ValueError("out of range")
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise InvalidArgument(
            "page_token is not one that this question returned; start again without it",
            reason="INVALID_PAGE_TOKEN",
            field="page_token",
        ) from error
    return Moment(valid_us, known_us), position


def _scope(question: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(question).encode("utf-8", "surrogatepass")).hexdigest()[:16]
