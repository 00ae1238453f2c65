"""A server and its load run on a core each, and on all of them again afterwards."""

import os
import subprocess
import sys

import pytest

from loadtest.peers.cores import one_core_each

TELL = "import os; print(sorted(os.sched_getaffinity(0)))"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_server_and_load_have_a_core_each() -> None:
    usable = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with one_core_each(server.pid) as apart:
            assert apart
            assert os.sched_getaffinity(server.pid) == {usable[0]}
            done = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, check=True)
            assert done.stdout.strip() == str([usable[1]])
        assert sorted(os.sched_getaffinity(server.pid)) == sorted(os.sched_getaffinity(0)) == usable
    finally:
        server.communicate(b"\n")


def test_one_core_alone_is_left_as_it_is() -> None:
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        with one_core_each(os.getpid()) as apart:
            assert not apart
    finally:
        os.sched_setaffinity(0, usable)
