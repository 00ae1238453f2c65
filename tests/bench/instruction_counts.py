"""Instructions of the request core, counted by callgrind and held to the last entry of instruction_counts.json.

Claim: no kind of read grows by more than 3 % without a note. Data: CASES of instruction_cases.py from a fixed seed.
Command: python -m tests.bench.instruction_counts [--record "why the counts changed"]   (with the optimised cores)
Counted are functions of our compiled modules while RequestCore.serve runs, so that neither the interpreter nor the C
library matters. Another compiler, Cython, Python or processor family makes other code: counts are compared only where
the toolchain of the entry is the one at hand.
"""

import argparse
import json
import marshal
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from core_ext import keys
from core_ext.arrow import arrow_column
from core_ext.row_codec import Schema, encode_rows
from core_ext.windows import Windows
from tests.bench.bench_request_core import request
from tests.bench.instruction_cases import (
    CASES,
    COLUMNS,
    DAY_US,
    ENTITY_ID,
    I64,
    PLAIN,
    READ_TIME_US,
    SCHEMA_ID,
    VIEWS,
    WINDOWED_COLUMNS,
    Case,
    Data,
    window_plan,
    windowed_view,
)

ROOT: Final = Path(__file__).parents[2]
BASELINE: Final = Path(__file__).with_name("instruction_counts.json")
GROWTH_MAX: Final = 0.03
SEED: Final = 7
ENTITIES: Final = 200
EVENTS: Final = 300  # of a windowed entity in a week
REQUESTS: Final = 20
LIMIT_S: Final = 120
SERVE: Final = re.compile(r"^\S+ t (__pyx_pw_\w+RequestCore_\d+serve)$", re.M)  # as Cython names the method


def plain_rows(generator: np.random.Generator, numbers: np.ndarray) -> tuple[list[bytes], list[bytes]]:
    """Storage keys and rows of four views of each entity."""
    batch = keys.encode_keys([I64], [arrow_column(pa.array(numbers))])
    schema, times = Schema(SCHEMA_ID, PLAIN), np.full(len(numbers), READ_TIME_US - 1)
    found: tuple[list[bytes], list[bytes]] = ([], [])
    for view in range(1, VIEWS + 1):
        columns = [arrow_column(pa.array(generator.random(len(numbers), np.float32))) for _ in range(COLUMNS)]
        found[0].extend(batch.storage_keys(ENTITY_ID, view, np.arange(len(numbers))))
        found[1].extend(encode_rows(schema, columns, times).stamp(np.arange(len(numbers)), 0, None, 0, 0, 0))
    return found


def windowed_rows(generator: np.random.Generator, numbers: np.ndarray) -> tuple[list[bytes], list[bytes]]:
    """Storage keys and rows of tiles of a week of events of each entity."""
    windows, view, count = Windows(window_plan()), windowed_view(), len(numbers)
    groups = generator.integers(0, count, count * EVENTS)
    times = READ_TIME_US - generator.integers(1, 7 * DAY_US, count * EVENTS)
    columns = [
        arrow_column(pa.array(generator.normal(10, 30, len(groups)).astype(np.float32)))
        for _ in range(WINDOWED_COLUMNS)
    ]
    deltas = windows.update(columns, times, groups, count).maps
    maps = [windows.apply(None, delta, 0).map for delta in deltas if delta is not None]
    bare = encode_rows(view.stored, [], np.full(count, READ_TIME_US)).stamp(np.arange(count), 0, None, 0, 0, 0)
    storage_keys = [keys.storage_key(ENTITY_ID, keys.encode_key([I64], [int(number)]), 1) for number in numbers]
    return storage_keys, [view.with_tiles(row, tiles) for row, tiles in zip(bare, maps, strict=True)]


def data_of(case: Case) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Keys, rows and requests of one case, the same in every run."""
    generator = np.random.default_rng(SEED)
    numbers = np.arange(ENTITIES, dtype=np.int64)
    made = windowed_rows(generator, numbers) if case.is_windowed else plain_rows(generator, numbers)
    wanted = [generator.choice(numbers, case.rows) for _ in range(REQUESTS)]
    return *made, [request(chosen) for chosen in wanted]


def counts(extra: int = 0) -> dict[str, int]:
    """Instructions of one request by case; `extra` requests of each are served twice."""
    with tempfile.TemporaryDirectory() as folder:
        data: Data = {case.name: data_of(case) for case in CASES}
        path = Path(folder) / "data"
        path.write_bytes(marshal.dumps(data))
        serve = serve_symbol()
        command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", f"--toggle-collect={serve}"]
        command += [f"--dump-after={serve}", "--compress-strings=no", "--compress-pos=no", "--cache-sim=no"]
        command += [f"--callgrind-out-file={folder}/out", sys.executable, "-m", "tests.bench.instruction_process"]
        run = subprocess.run(
            [*command, str(path), str(extra)],
            capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT, env=environment(), check=False,
        )  # fmt: skip
        if run.returncode != 0:
            raise SystemExit(run.stderr)
        parts = sorted(Path(folder).glob("out.*"), key=lambda part: int(part.suffix[1:]))
        calls = [sum(own_costs(part.read_text())) for part in parts]
    return by_case([count for count in calls if count], extra)


def serve_symbol() -> str:
    """The function whose calls are counted one by one; callgrind takes no pattern for that."""
    library = next((ROOT / "core_ext").glob("request_core.*.so"))
    told = subprocess.run(["nm", str(library)], capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
    found = SERVE.findall(told)
    if len(found) != 1:
        raise SystemExit(
            f"{library.name} has {len(found)} functions that look like RequestCore.serve: was it stripped?"
        )
    return str(found[0])


def environment() -> dict[str, str]:
    """What could change the path of the program is fixed."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def own_costs(dump: str) -> Iterator[int]:
    """Costs of the functions of our modules themselves, without what they call."""
    is_ours = is_inclusive = False
    for line in dump.splitlines():
        if line.startswith("ob="):
            is_ours = f"{ROOT}/core_ext/" in line
        elif line.startswith("calls="):
            is_inclusive = True  # the next line is the cost of the callee
        elif line[:1].isdigit():
            if is_ours and not is_inclusive:
                yield int(line.split()[1])
            is_inclusive = False


def by_case(calls: list[int], extra: int) -> dict[str, int]:
    """Calls in the order in which the counted process made them, as means per request."""
    out, at = {}, 0
    for case in CASES:
        made = (REQUESTS + extra) * (2 if case.is_missed else 1)
        out[case.name] = round(sum(calls[at : at + made]) / REQUESTS)
        at += made
    if at != len(calls):
        raise SystemExit(f"callgrind saw {len(calls)} calls of RequestCore.serve, not {at}")
    return out


def toolchain() -> dict[str, str]:
    """What turns the sources into instructions, and picks among them."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    flags = [flag for flag in str(sysconfig.get_config_var("CFLAGS")).split() if "=/" not in flag]
    words = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    return {
        "machine": platform.machine(),
        "vectors": "avx2" if "avx2" in words else "none",
        "compiler": told.splitlines()[0] if told else "none",
        "flags": " ".join(flags),
        "cython": version("cython"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def entries() -> list[dict[str, Any]]:
    """What was held, the oldest first; each has a date, a note, a toolchain and counts."""
    found: list[dict[str, Any]] = json.loads(BASELINE.read_text())["entries"] if BASELINE.exists() else []
    return found


def baseline() -> dict[str, Any]:
    """The entry that holds."""
    return entries()[-1]


def left_out() -> str:
    """Why counts of here cannot be held to the entry, or nothing."""
    held, here = baseline()["toolchain"], toolchain()
    differing = [f"{name} is {here[name]}, not {held.get(name)}" for name in here if here[name] != held.get(name)]
    return "; ".join(differing)


def growths(found: dict[str, int], held: dict[str, int]) -> dict[str, float]:
    """Cases that grew by more than is allowed without a note, with their growth as a share."""
    grown = {name: count for name, count in found.items() if count > held[name] * (1 + GROWTH_MAX)}
    return {name: round(count / held[name] - 1, 4) for name, count in grown.items()}


def record(found: dict[str, int], note: str) -> None:
    """Appends an entry."""
    entry = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "note": note, "toolchain": toolchain(), "counts": found}
    BASELINE.write_text(json.dumps({"entries": [*entries(), entry]}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", metavar="NOTE", help="hold the counts of now, for this reason")
    note = parser.parse_args().record
    if note is not None and len(re.findall(r"\w+", note)) < 3:
        parser.error("a note says in a few words why the counts changed")
    found = counts()
    if note:
        record(found, note)
    held = baseline()["counts"]
    for name, count in found.items():
        sys.stdout.write(f"{name:16} {count:10,} instructions  {count / held.get(name, count) - 1:+.2%}\n")
    return 1 if growths(found, held) else 0


if __name__ == "__main__":
    sys.exit(main())
