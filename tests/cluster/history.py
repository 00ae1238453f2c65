"""History of a fault run: what was sent, acknowledged, read and done to the server, one JSON line each."""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

LOG: Final = "LOG"
FSYNC: Final = "FSYNC"
MEMORY: Final = "MEMORY"


@dataclass(frozen=True, slots=True)
class Write:
    """One row as sent. `seq` is never given twice in a run, and event times of one key are all different."""

    key: int
    event_us: int
    seq: int


@dataclass(frozen=True, slots=True)
class Token:
    """Position in a shard's log that an acknowledgement named."""

    shard: int
    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class Request:
    """Rows that went out together."""

    request: str
    durability: str
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """One row of a read: `seq` is None where no row was stored, -1 where the columns belong to no single write."""

    key: int
    seq: int | None
    event_us: int


@dataclass(frozen=True, slots=True)
class Read:
    """One answered read. `life` counts the starts of the server before it."""

    reader: str
    life: int
    rows: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something done to the server, with the monotonic time."""

    name: str
    at_ns: int
    detail: str = ""


@dataclass(slots=True)
class History:
    """A whole run, as the checker takes it."""

    requests: dict[str, Request] = field(default_factory=dict)
    acknowledged: dict[str, tuple[Token, ...]] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def writes(self) -> Iterator[Write]:
        """Every row that may have reached the server."""
        for request in self.requests.values():
            yield from request.writes

    def promised(self, durabilities: Sequence[str]) -> Iterator[Write]:
        """Rows acknowledged at one of the durabilities."""
        for name in self.acknowledged:
            request = self.requests[name]
            if request.durability in durabilities:
                yield from request.writes


class Recorder:
    """Appends to a history file; an acknowledgement counts only once the file is on the disk. Any thread may call."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def sent(self, request: Request) -> None:
        """Call before the request leaves."""
        rows = [[write.key, write.event_us, write.seq] for write in request.writes]
        self._append({"kind": "sent", "request": request.request, "durability": request.durability, "rows": rows})

    def acknowledged(self, request: str, tokens: Sequence[Token]) -> None:
        """Call when the acknowledgement is in."""
        positions = [[token.shard, token.epoch, token.offset] for token in tokens]
        self._append({"kind": "acknowledged", "request": request, "tokens": positions}, durable=True)

    def failed(self, request: str, code: str) -> None:
        """Call when the outcome is an error: the rows may or may not have been applied."""
        self._append({"kind": "failed", "request": request, "code": code})

    def read(self, read: Read) -> None:
        """Call when an answer is in."""
        rows = [[seen.key, seen.seq, seen.event_us] for seen in read.rows]
        self._append({"kind": "read", "reader": read.reader, "life": read.life, "rows": rows})

    def mark(self, name: str, detail: str = "") -> None:
        """Notes what was done to the server."""
        self._append({"kind": "mark", "name": name, "at_ns": time.monotonic_ns(), "detail": detail})

    def _append(self, event: Mapping[str, Any], *, durable: bool = False) -> None:
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)
        if durable:
            os.fsync(self._file)


def load(paths: Sequence[Path]) -> History:
    """History of several recorders; a half line at the end of a file is a crash of its recorder and is dropped."""
    history = History()
    for path in paths:
        for line in path.read_bytes().split(b"\n")[:-1]:
            _add(history, json.loads(line))
    history.marks.sort(key=lambda mark: mark.at_ns)
    return history


def _add(history: History, event: Mapping[str, Any]) -> None:
    match event["kind"]:
        case "sent":
            writes = tuple(Write(*row) for row in event["rows"])
            history.requests[event["request"]] = Request(event["request"], event["durability"], writes)
        case "acknowledged":
            history.acknowledged[event["request"]] = tuple(Token(*token) for token in event["tokens"])
        case "failed":
            history.failures.append((event["request"], event["code"]))
        case "read":
            history.reads.append(Read(event["reader"], event["life"], tuple(Seen(*row) for row in event["rows"])))
        case "mark":
            history.marks.append(Mark(event["name"], event["at_ns"], event["detail"]))
        case other:
            raise ValueError(f"unknown event {other!r} in a history")
