"""One historical join described by a JSON file: `python -m batch.historical JOB.json`; prints what it did as JSON."""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch.historical import MEMORY_LIMIT_BYTES, FeatureColumn, HistoryInput, KeyColumn, join_to_parquet
from headrace.errors import HeadraceError
from headrace.types import Scalar, parse_type


def history(view: Mapping[str, Any]) -> HistoryInput:
    """A view of the job: name, files, keys (history, spine, type), columns (name, type), and any other field."""
    keys = tuple(KeyColumn(of, spine, Scalar[kind.upper()]) for of, spine, kind in view["keys"])
    columns = tuple(FeatureColumn(name, parse_type(kind)) for name, kind in view["columns"])
    rest = {name: value for name, value in view.items() if name not in {"name", "files", "keys", "columns"}}
    return HistoryInput(name=view["name"], columns=columns, keys=keys, rows=view["files"], **rest)


def resident_bytes() -> int:
    """Resident size before the join: what a memory limit does not count."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Exit code 0 when the result stands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    job = json.loads(parser.parse_args().job.read_text())
    base_bytes = resident_bytes()
    began = time.perf_counter()
    try:
        report = join_to_parquet(
            job["spine"],
            [history(view) for view in job["views"]],
            job["output"],
            time_column=job["time_column"],
            cutoff_us=job["cutoff_us"],
            memory_limit_bytes=job.get("memory_limit_bytes", MEMORY_LIMIT_BYTES),
        )
    except HeadraceError as error:
        sys.stderr.write(f"{error.reason}: {error.message}\n")
        return 1
    out = {
        "seconds": time.perf_counter() - began,
        "rows": report.rows,
        "spilled_bytes": report.spilled_bytes,
        "peak_bytes_planned": report.peak_bytes,
        "base_bytes": base_bytes,
        "sha256": report.digest.sha256,
    }
    sys.stdout.write(json.dumps(out) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
