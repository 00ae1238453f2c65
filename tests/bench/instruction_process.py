"""The process that valgrind counts: serves every case's requests, call by call in the order of CASES.

Run by tests.bench.instruction_counts as `instruction_process DATA EXTRA`; EXTRA requests of each case are served twice,
which is how the test of the gate makes the core look slower.
"""

import marshal
import sys
from pathlib import Path

from core_ext.request_core import Misses, Overlay, RequestCore
from tests.bench.instruction_cases import CASES, READ_TIME_US, Case, Data, core_of


def main(path: str, extra: int) -> None:
    data: Data = marshal.loads(Path(path).read_bytes())
    for case in CASES:
        keys, rows, requests = data[case.name]
        core, stored = core_of(case, keys, rows), dict(zip(keys, rows, strict=True))
        for number, request in enumerate(requests):
            for _ in range(1 + (number < extra)):
                serve(core, case, request, stored)


def serve(core: RequestCore, case: Case, request: bytes, stored: dict[bytes, bytes]) -> None:
    answer = core.serve(request, READ_TIME_US)
    if case.is_missed:
        assert isinstance(answer, Misses)
        overlay = Overlay()
        overlay.add(answer.storage_keys, [stored[key] for key in answer.storage_keys])
        answer = core.serve(request, READ_TIME_US, None, overlay)
    if not isinstance(answer, bytes):
        raise SystemExit(f"{case.name}: the core answered {answer!r}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
