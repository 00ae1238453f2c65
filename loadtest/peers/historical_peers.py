"""One as-of join by DuckDB or Polars in a process of its own: `python -m loadtest.peers.historical_peers NAME JOB`."""

import argparse
import contextlib
import io
import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any, Final

THREADS: Final = 2
COMPRESSION: Final = "snappy"  # of the result, as our own engine has it: zstd would cost Polars time that is no join's

Job = dict[str, Any]  # the JSON that batch.historical takes


def by_duckdb(job: Job) -> None:
    """ASOF joins in one statement; order of rows is not asked for, which its guide recommends against memory."""
    import duckdb  # a peer, loaded only where it is measured

    connection = duckdb.connect()
    connection.execute(f"SET threads={THREADS}; SET preserve_insertion_order=false")
    columns = ["s.*"]
    joins = ""
    for number, view in enumerate(job["views"]):
        columns += [f"v{number}.{name} AS {view['name']}__{name}" for name, _ in view["columns"]]
        joins += f" ASOF LEFT JOIN read_parquet({view['files']}) v{number}"
        joins += f" ON s.entity = v{number}.entity AND s.at >= v{number}.event_time"
    query = f"SELECT {', '.join(columns)} FROM read_parquet({job['spine']}) s{joins}"  # noqa: S608 - names of our own job
    connection.execute(f"COPY ({query}) TO '{job['output']}' (FORMAT parquet, COMPRESSION {COMPRESSION})")


def by_polars(job: Job) -> None:
    """Lazy join_asof by entity; spine and histories are sorted by time, as it asks for, and marked as such."""
    import polars as pl  # a peer, loaded only where it is measured

    out = pl.scan_parquet(job["spine"]).set_sorted("at")
    for view in job["views"]:
        names = {name: f"{view['name']}__{name}" for name, _ in view["columns"]}
        right = pl.scan_parquet(view["files"]).set_sorted("event_time").rename(names)
        out = out.join_asof(right, left_on="at", right_on="event_time", by="entity", check_sortedness=False)
        out = out.drop("event_time", strict=False)
    out.sink_parquet(job["output"], compression=COMPRESSION)


def peak_bytes(status: str = "/proc/self/status") -> int:
    """Greatest resident size of this program: VmHWM, as ru_maxrss would count the parent's before the start."""
    line = next(line for line in Path(status).read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def by_headrace(job: Job, path: Path) -> dict[str, Any]:
    """Our own engine by its command, inside this process so that its peak is counted alike."""
    sys.argv = ["batch.historical", str(path)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_module("batch.historical", run_name="__main__")
        except SystemExit as ended:
            if ended.code:
                raise
    return dict(json.loads(printed.getvalue()))


def main() -> int:
    """Prints seconds from the first read to the closed file, and the peak, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["headrace", "duckdb", "polars"])
    parser.add_argument("job", type=Path)
    options = parser.parse_args()
    job = json.loads(options.job.read_text())
    if options.engine == "headrace":
        found = by_headrace(job, options.job)
    else:
        engine = by_duckdb if options.engine == "duckdb" else by_polars
        __import__(options.engine)  # outside the time, as our own engine is
        began = time.perf_counter()
        engine(job)
        found = {"seconds": time.perf_counter() - began}
    spent = {"cpu_seconds": time.process_time(), "peak_bytes": peak_bytes()}
    sys.stdout.write(json.dumps(found | spent) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
