"""Load with a different body for every call, from our C generator."""

import hashlib
import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest.peers.h2load import CONNECTIONS, GRPC_PREFIX, grpc_body, load_failed
from loadtest.peers.processes import ROOT

SOURCE: Final = ROOT / "loadtest" / "native" / "grpc_load.c"
COMPILE_S: Final = 60.0
GRACE_S: Final = 30.0
MARKER: Final = 0x1122_3344_5566_7788  # its place in a request is where the generator writes the keys
MARKER_BYTES: Final = struct.pack("<q", MARKER)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one run measured, latencies in microseconds."""

    answered: int
    failed: int
    rate: float
    p50_us: int
    p99_us: int
    p999_us: int
    max_us: int


def program(folder: Path) -> Path:
    """The compiled generator, made anew when its source changed."""
    out = folder / f"grpc_load-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if out.exists():
        return out
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise load_failed("there is no C compiler: install Debian's gcc")
    folder.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    command = [compiler, "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", str(part), str(SOURCE)]
    subprocess.run(command, check=True, timeout=COMPILE_S)
    part.replace(out)
    return out


def write_bodies(path: Path, messages: Iterable[bytes]) -> None:
    """A file of request messages as the generator reads them."""
    with path.open("wb") as file:
        for message in messages:
            body = grpc_body(message)
            file.write(struct.pack("<I", len(body)) + body)


def write_keyed_body(path: Path, request: Callable[[int], bytes]) -> int:
    """A file with the one body into which keys are written, and where in it they go; `request` makes one for a key."""
    message = request(MARKER)
    if message.count(MARKER_BYTES) != 1:
        raise ValueError("the key stands in the request once, as a fixed64")
    write_bodies(path, [message])
    return GRPC_PREFIX.size + message.index(MARKER_BYTES)


@dataclass(frozen=True, slots=True)
class Aim:
    """Where to send; an answer of fewer bytes than the least is a failure.

    `keys` is a file of u32 and the offset where each body takes the next of them as a fixed64.
    """

    port: int
    method: str
    bodies: Path
    answer_bytes_min: int
    connections: int = CONNECTIONS
    keys: tuple[Path, int] | None = None


def command(tool: Path, aim: Aim, rate: float, duration_s: float) -> list[str]:
    """The command line; rate 0 is a closed loop."""
    words = [str(tool), str(aim.port), aim.method, str(aim.bodies), str(aim.connections), f"{rate:g}"]
    words += [f"{duration_s:g}", str(aim.answer_bytes_min)]
    return words if aim.keys is None else [*words, str(aim.keys[0]), str(aim.keys[1])]


def run(tool: Path, aim: Aim, rate: float, duration_s: float) -> Answers:
    """Sends and returns what came back."""
    try:
        done = subprocess.run(
            command(tool, aim, rate, duration_s),
            capture_output=True,
            text=True,
            timeout=duration_s + GRACE_S,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise load_failed(f"the load generator failed against port {aim.port}: {error}") from error
    return parse(done.stdout)


def parse(line: str) -> Answers:
    """Reads the generator's line of JSON."""
    return Answers(**json.loads(line))
