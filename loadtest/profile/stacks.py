"""Stacks that perf sampled, folded: frames from the outermost to the innermost, and how often they were seen."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from headrace.errors import Unavailable

LOOP: Final = "hr_loop_run"
KERNEL: Final = "[kernel]"
UNKNOWN: Final = "[unknown]"
Stack = tuple[str, ...]
Folded = dict[Stack, int]

_HEAD = re.compile(r"^\S.*?\s+(\d+)\s*$")
_FRAME = re.compile(r"^\s+[0-9a-f]+ (.+?)(?:\+0x[0-9a-f]+)? \((.*)\)$")
_COMPILER_PART = re.compile(r"\.(?:constprop|isra|part|cold|lto_priv)\b[.\d]*")


class Sample(NamedTuple):
    """One interrupt of one thread."""

    thread: int
    stack: Stack


def samples(lines: Iterable[str]) -> Iterator[Sample]:
    """Reads `perf script -F comm,tid,ip,sym,dso`, whose frames come innermost first."""
    thread, frames = 0, list[str]()
    for line in lines:
        if head := _HEAD.match(line):
            thread, frames = int(head[1]), []
        elif frame := _FRAME.match(line):
            frames.append(_name(frame[1], frame[2]))
        elif not line.strip() and frames:
            yield Sample(thread, _called(frames))
            frames = []
    if frames:
        yield Sample(thread, _called(frames))


def _name(symbol: str, origin: str) -> str:
    name = _COMPILER_PART.sub("", symbol)
    is_kernel = origin.startswith("[kernel") or origin.startswith("[guest.kernel") or origin.endswith(".ko")
    return f"{name} {KERNEL}" if is_kernel else name


def _called(frames: list[str]) -> Stack:
    """Outermost first; a function that perf names again for its own inlined part is one frame."""
    ordered = frames[::-1]
    return tuple(name for at, name in enumerate(ordered) if at == 0 or name != ordered[at - 1])


def of_loops(seen: Iterable[Sample]) -> Folded:
    """Folded stacks of the threads that run the native loop, from its function inwards.

    Raises Unavailable where no thread does.
    """
    kept = list(seen)
    threads = {sample.thread for sample in kept if LOOP in sample.stack}
    if not threads:
        raise Unavailable(
            f"none of {len(kept)} samples is of the native loop: compile the cores with libnghttp2 and with CFLAGS=-g",
            reason="NOTHING_PROFILED",
        )
    return dict(Counter(_from_loop(sample.stack) for sample in kept if sample.thread in threads))


def _from_loop(stack: Stack) -> Stack:
    """What perf could not follow to the loop stands below [unknown], still inside it."""
    return stack[stack.index(LOOP) :] if LOOP in stack else (LOOP, UNKNOWN, *stack)


def to_text(folded: Folded) -> str:
    """The usual form, a stack and its count a line, which viewers of flame graphs read."""
    return "".join(f"{';'.join(stack)} {count}\n" for stack, count in sorted(folded.items()))


def from_text(text: str) -> Folded:
    """The inverse of to_text."""
    parts = (line.rpartition(" ") for line in text.splitlines())
    return {tuple(stack.split(";")): int(count) for stack, _, count in parts}
