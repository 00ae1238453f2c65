"""Twin of core_ext.page_encoder: bits and runs one number at a time."""

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile

RUN_MIN = 8
RUN_GROUPS_MAX = 63


def levels_of(validity: bytes, offset: int, count: int) -> list[int]:
    """Bits of a validity bitmap."""
    return [validity[i // 8] >> i % 8 & 1 for i in range(offset, offset + count)]


def in_runs(numbers: Sequence[int], bits: int) -> bytes:
    """A run of equal numbers where there are eight or more, else groups of eight that are packed."""
    out = bytearray()
    for is_packed, runs in groupby(_runs(numbers), lambda run: run[1]):
        if is_packed:
            groups = [run[0] for run in runs]
            for at in range(0, len(groups), RUN_GROUPS_MAX):
                part = groups[at : at + RUN_GROUPS_MAX]
                out.append(len(part) << 1 | 1)
                for group in part:
                    out += sum(number << bits * i for i, number in enumerate(group)).to_bytes(bits, "little")
            continue
        for run, _ in runs:
            out += _varint(len(run) << 1) + bytes([run[0]])
    return bytes(out)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[list[int], bool]]:
    """Equal numbers, or eight (at the end fewer) that are packed."""
    left = list(numbers)
    while left:
        equal = list(takewhile(left[0].__eq__, left))
        taken = equal if len(equal) >= RUN_MIN else left[:8]
        yield taken, taken is not equal
        left = left[len(taken) :]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def present(values: Sequence[bytes], levels: Sequence[int]) -> bytes:
    """The values whose level is 1."""
    return b"".join(value for value, level in zip(values, levels, strict=True) if level)


def numbered(values: bytes) -> tuple[bytes, list[int]]:
    """The different bytes, and the place of each byte among them."""
    different = sorted(set(values))
    return bytes(different), [different.index(value) for value in values]
