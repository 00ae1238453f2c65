"""Reads of 1x200 over TLS cost the native loop at most twice the CPU of plain ones.

Data: 5,000 users with the 200 features of loadtest/dataset.py, one read that hits, answered again and again; h2load
with 8 connections of one stream; the certificate is ECDSA P-256. Command:
`python -m tests.bench.bench_tls` prints one line of JSON with rates and CPU of both.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headrace.client import Client
from headrace.client.tls import Tls
from loadtest.calls import READ_METHOD, Calls
from loadtest.dataset import SCENARIOS, USER_SERVICE
from loadtest.peers.h2load import Amount, Target, grpc_body, grpc_target, run
from loadtest.peers.headrace_peer import HeadracePeer, Memory
from loadtest.peers.processes import LOOPBACK, ROOT, Child, free_port, listens, usage
from tests.integration.certificates import Authority

USERS = 5_000
DURATION_S = 3.0
MEMORY = Memory(table_bytes=256 << 20, block_cache_bytes=64 << 20, write_buffer_bytes=64 << 20)
ROUNDS = 2
CPU_RATIO_MAX = 2.0


def measure(folder: Path, authority: Authority, options: Sequence[str]) -> dict[str, float]:
    """Rate and server CPU of one read, by a server of its own on the loaded folder."""
    port = free_port()
    words = [sys.executable, "-m", "feature_server.app", "--data", str(folder / "feature_server"), "--port", str(port)]
    words += ["--registry", f"{LOOPBACK}:1", "--loops", "1", *MEMORY.options(), *options]
    with Child(words, folder / "measured.log", cwd=ROOT) as child:
        child.wait_until(lambda: listens(port), "the feature server")
        with Client(f"{LOOPBACK}:{port}", tls=Tls(authority.file) if options else None) as client:
            prepared = client.prepare(USER_SERVICE, timeout_s=20)
            calls = Calls(SCENARIOS["1x200"], USERS, 1, prepared.handle)
            users = calls.draw()
            batch = client.get_online_features(prepared, entities={"user_id": users}, timeout_s=20)
            assert len(batch.columns) == 200
        request = calls.request(users)
        target = grpc_target(port, READ_METHOD, request, folder / "body")
        if options:
            target = Target(target.url.replace("http:", "https:"), target.body, target.headers)
        run(target, Amount(duration_s=0.5))
        before = usage(child.pid, with_children=False)
        load = run(target, Amount(duration_s=DURATION_S))
        spent_s = usage(child.pid, with_children=False).cpu_s - before.cpu_s
    # h2load's warm-up of 0.2 s is in the CPU and not in the requests.
    requests = load.rate * (DURATION_S + 0.2)
    return {"rate": load.rate, "cpu_us": spent_s / requests * 1e6, "bytes": len(grpc_body(request))}


def main() -> None:
    """Measures plain and TLS in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority(folder)
        pair = authority.issue("server")
        peer = HeadracePeer(folder, MEMORY)
        try:
            peer.load(USERS)
        finally:
            peer.stop()
        tls = ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
        found: dict[str, list[dict[str, float]]] = {"plain": [], "tls": []}
        for _ in range(ROUNDS):
            found["plain"].append(measure(folder, authority, ()))
            found["tls"].append(measure(folder, authority, tls))
    best = {line: max(runs, key=lambda run: run["rate"]) for line, runs in found.items()}
    ratios = {key: best["tls"][key] / best["plain"][key] for key in ("rate", "cpu_us")}
    sys.stdout.write(json.dumps({**best, "ratios": ratios}) + "\n")
    assert ratios["cpu_us"] <= CPU_RATIO_MAX, ratios


if __name__ == "__main__":
    main()
