"""Page tokens of lineage: a position in an answer, and the moment at which it stays what it was."""

from typing import Final

from control_plane.domain import pages
from control_plane.domain.lineage.mirror import Moment

TOKEN_LENGTH_MAX: Final = 256


def write_token(question: tuple[object, ...], moment: Moment, position: int) -> str:
    """Token of the next page of a question."""
    return pages.write_token(pages.scope_of(repr(question)), moment.valid_us, moment.known_us, position)


def read_token(question: tuple[object, ...], token: str) -> tuple[Moment, int]:
    """Moment and position of a token; raises InvalidArgument where it is of another question."""
    with pages.refusing_tokens("this question"):
        numbers = pages.token_values(token, pages.scope_of(repr(question)), TOKEN_LENGTH_MAX)
        valid_us, known_us, position = numbers
        if any(type(number) is not int for number in numbers) or position < 0:
            raise ValueError("of another question")
        if not all(-(2**63) <= number < 2**63 for number in numbers):
            raise ValueError("out of range")
    return Moment(valid_us, known_us), position
