"""Profiles the native loop under h2load and writes docs/performance.md: python -m loadtest.profile.run [--seconds N]

The server holds 10,000 users of four views of 50 f32 and answers 1 x 200 by handle on 8 connections, as the quick
comparison with the peers does. CPU a request is measured first, without perf; then perf samples the same load.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from headrace.errors import HeadraceError, Unavailable
from loadtest.peers import h2load
from loadtest.peers.h2load import CONNECTIONS, Amount, Target
from loadtest.peers.headrace_peer import HeadracePeer, Memory
from loadtest.peers.processes import ROOT, usage
from loadtest.peers.result import commit, machine, rounded
from loadtest.profile.page import FOLDER, write
from loadtest.profile.stacks import Folded, of_loops, samples, to_text
from loadtest.rows import SEED

USERS: Final = 10_000
SCENARIO: Final = "1x200"
CALLS: Final = 100_000  # of the measurement of CPU a request
SECONDS: Final = 8.0
RATE_HZ: Final = 997  # beside the beat of timers
STACK_BYTES: Final = 16_384  # copied of each sample; the loop's own frame holds its events, 12 KiB
LEAD_S: Final = 1.0  # load before and after the samples
PERF_LIMIT_S: Final = 300.0
MEMORY: Final = Memory(256 << 20, 64 << 20, 64 << 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the folded stacks, the figures, the picture and the page; 1 where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long perf samples")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the measurement and the picture")
    chosen = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-profile-") as name:
            folded, figures = profile(Path(name), chosen.seconds)
    except HeadraceError as error:
        sys.stderr.write(f"profile: {error}\n")
        return 1
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "loop.folded").write_text(to_text(folded))
    (chosen.out / "loop.json").write_text(json.dumps(figures, indent=1) + "\n")
    write(chosen.out)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def profile(folder: Path, seconds: float) -> tuple[Folded, dict[str, object]]:
    """Folded stacks of the loops, and what was measured."""
    event = sampled_event()
    peer = HeadracePeer(folder, MEMORY)
    try:
        peer.load(USERS)
        target = peer.target(SCENARIO, USERS, SEED, folder / "body")
        h2load.run(target, Amount(requests=CALLS // 10))
        before = usage(peer.child.pid, with_children=False).cpu_s
        load = h2load.run(target, Amount(requests=CALLS))
        cpu_us = (usage(peer.child.pid, with_children=False).cpu_s - before) / CALLS * 1e6
        data = folder / "perf.data"
        sample(peer.child.pid, target, event, seconds, data)
        folded = of_loops(samples(script(data)))
    finally:
        peer.stop()
    return folded, {
        "scenario": SCENARIO,
        "connections": CONNECTIONS,
        "requests_per_s": rounded(load.rate),
        "cpu_us_per_request": rounded(cpu_us),
        "event": event,
        "samples": sum(folded.values()),
        "commit": commit(ROOT),
        "machine": machine(),
    }


def sampled_event() -> str:
    """Cycles where the machine counts them, else the kernel's clock of CPU time."""
    told = _perf("stat", "-x", ",", "-e", "cycles", "--", "true")
    return "cpu-clock" if "<not supported>" in told.stderr or told.returncode != 0 else "cycles"


def sample(pid: int, target: Target, event: str, seconds: float, data: Path) -> None:
    """Samples the process while the load runs; the load begins before and ends after."""
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(h2load.run, target, Amount(duration_s=seconds + 2 * LEAD_S))
        options = [
            "-e",
            event,
            "-F",
            str(RATE_HZ),
            "--call-graph",
            f"dwarf,{STACK_BYTES}",
            "-p",
            str(pid),
            "-o",
            str(data),
        ]
        began = _perf("record", *options, "--delay", str(round(LEAD_S * 1000)), "--", "sleep", str(seconds + LEAD_S))
        load.result()
    if began.returncode != 0 or not data.exists():
        raise Unavailable(
            f"perf could not sample: {began.stderr.strip()[-300:]}; it needs root or kernel.perf_event_paranoid at 1",
            reason="NOTHING_PROFILED",
        )


def script(data: Path) -> list[str]:
    """The samples as text, inlined functions as frames of their own."""
    told = _perf("script", "-i", str(data), "-F", "comm,tid,ip,sym,dso")
    if told.returncode != 0:
        raise Unavailable(f"perf could not read its samples: {told.stderr.strip()[-300:]}", reason="NOTHING_PROFILED")
    return told.stdout.splitlines()


def _perf(*arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["perf", *arguments], capture_output=True, text=True, timeout=PERF_LIMIT_S, check=False, errors="replace"
        )
    except FileNotFoundError as error:
        raise Unavailable("perf is not installed: install Debian's linux-perf", reason="NOTHING_PROFILED") from error


if __name__ == "__main__":
    sys.exit(main())
