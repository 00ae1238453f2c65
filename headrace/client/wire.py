"""Length-delimited fields of the protobuf wire format, written without making messages."""

from typing import Final

from headrace.errors import InternalError

LENGTH_DELIMITED: Final = 2  # wire type of strings, bytes and messages


def varint_bytes(value: int) -> bytes:
    """Varint form of a number that is not negative."""
    assert value >= 0, "lengths and tags are never negative"
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, payload: bytes) -> bytes:
    """One length-delimited field."""
    return varint_bytes(number << 3 | LENGTH_DELIMITED) + varint_bytes(len(payload)) + payload


def malformed(what: str) -> InternalError:
    """The error of an answer that breaks its contract."""
    return InternalError(
        f"the server's answer is malformed ({what}); client and server may be of different releases",
        reason="RESPONSE_MALFORMED",
        metadata={"what": what},
    )
