"""What perf prints becomes folded stacks of the loops alone."""

import pytest

from headrace.errors import Unavailable
from loadtest.profile.stacks import from_text, of_loops, samples, to_text

SCRIPT = """\
python 41
\t          55d0 hr_gather_plain+0x10 (inlined)
\t          55d0 hr_write_answer.constprop.0+0x10 (/a/core_ext/native_loop.so)
\t          5400 hr_on_event (inlined)
\t          5400 hr_loop_run+0x3 (/a/core_ext/native_loop.so)
\t          1000 start_thread+0x2 (/usr/lib/libc.so.6)

python 41
\tffffffff81000 tcp_sendmsg+0x2 ([kernel.kallsyms])
\t          7777 __libc_send (inlined)
\t          7777 __libc_send+0x4 (/usr/lib/libc.so.6)
\t          5410 hr_loop_run+0x9 (/a/core_ext/native_loop.so)

python 41
\t          99 [unknown] (/usr/lib/libnghttp2.so.14)

some worker:1 42
\t          2000 _PyEval_EvalFrameDefault+0x1 (/usr/lib/libpython3.11.so)
"""


def test_stacks_begin_at_the_loop_and_other_threads_are_left_out() -> None:
    assert of_loops(samples(SCRIPT.splitlines())) == {
        ("hr_loop_run", "hr_on_event", "hr_write_answer", "hr_gather_plain"): 1,
        ("hr_loop_run", "__libc_send", "tcp_sendmsg [kernel]"): 1,
        ("hr_loop_run", "[unknown]", "[unknown]"): 1,
    }


def test_without_a_loop_the_error_says_what_is_missing() -> None:
    with pytest.raises(Unavailable, match="none of 1 samples"):
        of_loops(samples(SCRIPT.splitlines()[-2:]))


def test_text_of_stacks_is_read_back() -> None:
    folded = of_loops(samples(SCRIPT.splitlines()))
    assert from_text(to_text(folded)) == folded
