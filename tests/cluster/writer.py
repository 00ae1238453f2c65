"""Load of a fault run: `python -m tests.cluster.writer` writes and reads until SIGTERM and keeps the history."""

import argparse
import itertools
import random
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from tests.cluster.calls import Caller, code_of
from tests.cluster.dataset import event_time_us
from tests.cluster.history import Read, Recorder, Request, Write

LATE_MAX: Final = 400  # writes by which an event may come too early or too late
REPEAT_SHARE: Final = 0.5  # of the failed requests; the others are given up
REPEATS_MAX: Final = 200  # then the server is gone for good
REPEAT_PAUSE_S: Final = 0.02
KEYS_PER_READ: Final = 50


@dataclass(frozen=True, slots=True)
class Load:
    """What one run writes; every writer thread owns the keys of its remainder, so that its own order is total."""

    address: str
    history: Path
    life_file: Path
    seed: int
    durabilities: tuple[str, ...]
    key_count: int
    writer_count: int
    rows_per_request: int
    payload_bytes: int
    first_seq: int


def main() -> int:
    """Runs until SIGTERM."""
    load = _load(sys.argv[1:])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    numbers = itertools.count(load.first_seq)  # next() of it is atomic
    with Recorder(load.history) as recorder:
        threads = [
            threading.Thread(target=_write, args=(load, index, numbers, recorder, stop))
            for index in range(load.writer_count)
        ]
        threads.append(threading.Thread(target=_read, args=(load, recorder, stop)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 0


def _write(load: Load, index: int, numbers: Iterator[int], recorder: Recorder, stop: threading.Event) -> None:
    source = random.Random(f"{load.seed}/{load.first_seq}/{index}")
    own_keys = range(index, load.key_count, load.writer_count)
    with Caller(load.address) as caller:
        while not stop.is_set():
            keys = source.sample(own_keys, min(load.rows_per_request, len(own_keys)))
            seqs = [next(numbers) for _ in keys]
            jitters = [source.randint(-LATE_MAX, LATE_MAX) for _ in keys]
            times = [event_time_us(seq, jitter) for seq, jitter in zip(seqs, jitters, strict=True)]
            writes = tuple(Write(*fields) for fields in zip(keys, times, seqs, strict=True))
            request = Request(
                str(uuid.UUID(int=source.getrandbits(128), version=4)), source.choice(load.durabilities), writes
            )
            _send(caller, request, load.payload_bytes, source, recorder, stop)


def _send(
    caller: Caller,
    request: Request,
    payload_bytes: int,
    source: random.Random,
    recorder: Recorder,
    stop: threading.Event,
) -> None:
    recorder.sent(request)
    is_repeated = source.random() < REPEAT_SHARE
    for _ in range(REPEATS_MAX):
        try:
            tokens = caller.write(request, payload_bytes)
        except grpc.RpcError as error:
            recorder.failed(request.request, code_of(error))
            if not is_repeated or stop.wait(REPEAT_PAUSE_S):
                return
        else:
            recorder.acknowledged(request.request, tokens)
            return


def _read(load: Load, recorder: Recorder, stop: threading.Event) -> None:
    """Reads random keys; an answer counts only when no new life began meanwhile, as it says which life it is of."""
    source = random.Random(f"{load.seed}/{load.first_seq}/reader")
    with Caller(load.address) as caller:
        while not stop.is_set():
            life = load.life_file.read_text()
            keys = source.sample(range(load.key_count), min(KEYS_PER_READ, load.key_count))
            try:
                rows, _ = caller.read(keys)
            except grpc.RpcError:
                stop.wait(REPEAT_PAUSE_S)
                continue
            if life and life == load.life_file.read_text():
                recorder.read(Read("reader", int(life), rows))


def _load(arguments: list[str]) -> Load:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--life-file", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--durabilities", type=lambda text: tuple(text.split(",")), default=("LOG", "FSYNC"))
    parser.add_argument("--key-count", type=int, default=2_000)
    parser.add_argument("--writer-count", type=int, default=2)
    parser.add_argument("--rows-per-request", type=int, default=20)
    parser.add_argument("--payload-bytes", type=int, default=200)
    parser.add_argument("--first-seq", type=int, default=1)
    return Load(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
