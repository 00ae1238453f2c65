"""Errors about an expression, pointing at the character."""

from headrace.errors import InvalidArgument

SHOWN_CHARACTERS_MAX = 120  # of the line that an error quotes


def problem(text: str, position: int, message: str, reason: str, **metadata: object) -> InvalidArgument:
    """InvalidArgument whose message quotes the line and puts a caret below the character at `position`."""
    position = min(position, len(text))
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line, column = text[start : len(text) if end < 0 else end], position - start
    if column > SHOWN_CHARACTERS_MAX // 2:
        cut = column - SHOWN_CHARACTERS_MAX // 2
        line, column = line[cut:], column - cut
    line = line[:SHOWN_CHARACTERS_MAX].replace("\t", " ")
    facts = {"position": position, "line": text.count("\n", 0, position) + 1, "column": position - start + 1}
    return InvalidArgument(
        f"{message}, at character {position + 1}\n  {line}\n  {' ' * column}^",
        reason=reason,
        metadata={key: str(value) for key, value in (facts | metadata).items()},
    )
