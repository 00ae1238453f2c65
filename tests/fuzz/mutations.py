"""Mutations of bytes, drawn from a seeded generator."""

import random
from collections.abc import Iterator, Sequence

LENGTH_MAX = 4096  # of an input; the golden bytes are below 400, so copies of slices stay readable
STEPS_MAX = 4
BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
WORDS = (0, 1, 4, 8, 63, 64, 65, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 5, 2**32 - 4, 2**32 - 1)


def mutations(corpus: Sequence[bytes], seed: int, count: int) -> Iterator[tuple[int, bytes]]:
    """`count` damaged inputs, each with the index of the corpus entry that it came from."""
    generator = random.Random(seed)
    for _ in range(count):
        index = generator.randrange(len(corpus))
        yield index, mutate(corpus[index], corpus, generator)


def mutate(data: bytes, corpus: Sequence[bytes], generator: random.Random) -> bytes:
    """One input, one to four steps away from `data`."""
    out = bytearray(data)
    for _ in range(generator.randint(1, STEPS_MAX)):
        generator.choice(STEPS)(out, corpus, generator)
    return bytes(out[:LENGTH_MAX])


def _place(out: bytearray, generator: random.Random) -> int:
    return generator.randrange(len(out) + 1)


def _flip(out: bytearray, _: Sequence[bytes], generator: random.Random) -> None:
    if out:
        out[generator.randrange(len(out))] ^= 1 << generator.randrange(8)


def _set_byte(out: bytearray, _: Sequence[bytes], generator: random.Random) -> None:
    if out:
        out[generator.randrange(len(out))] = generator.choice((*BYTES, generator.randrange(256)))


def _set_word(out: bytearray, _: Sequence[bytes], generator: random.Random) -> None:
    """Little-endian words, mostly aligned: the lengths and positions of rows."""
    if len(out) >= 4:
        at = generator.randrange(len(out) - 3)
        at -= at % 4 if generator.random() < 0.8 else 0
        out[at : at + 4] = generator.choice((*WORDS, len(out))).to_bytes(4, "little")


def _insert(out: bytearray, _: Sequence[bytes], generator: random.Random) -> None:
    at = _place(out, generator)
    out[at:at] = generator.randbytes(generator.choice((1, 2, 4, 8, 11)))


def _delete(out: bytearray, _: Sequence[bytes], generator: random.Random) -> None:
    at = _place(out, generator)
    del out[at : at + generator.choice((1, 2, 4, 8, 40))]


def _cut(out: bytearray, _: Sequence[bytes], generator: random.Random) -> None:
    del out[_place(out, generator) :]


def _repeat(out: bytearray, _: Sequence[bytes], generator: random.Random) -> None:
    begin = _place(out, generator)
    at = _place(out, generator)
    out[at:at] = out[begin : begin + generator.randint(1, 32)]


def _splice(out: bytearray, corpus: Sequence[bytes], generator: random.Random) -> None:
    other = generator.choice(corpus)
    out[_place(out, generator) :] = other[generator.randrange(len(other) + 1) :]


STEPS = (_flip, _set_byte, _set_word, _set_word, _insert, _delete, _cut, _repeat, _splice)
