"""Samples belong to the stage of their innermost known function, and the rules name functions that exist."""

import re
from pathlib import Path

import pytest

from loadtest.profile.stages import STAGES, shares, stage_of

LOOP = ("hr_loop_run", "hr_on_event")
READ = (*LOOP, "hr_receive", "nghttp2_session_mem_recv", "hr_on_frame", "hr_serve_read")


@pytest.mark.parametrize(
    ("stack", "stage"),
    [
        (LOOP, "loop"),
        ((*LOOP, "hr_settle", "hr_pump", "__libc_send", "tcp_sendmsg [kernel]", "tcp_v4_rcv [kernel]"), "kernel send"),
        ((*LOOP, "hr_receive", "recv", "__x64_sys_recvfrom [kernel]"), "kernel receive"),
        (("hr_loop_run", "epoll_wait", "do_epoll_wait [kernel]", "schedule [kernel]"), "epoll"),
        ((*READ[:4], "[unknown]"), "nghttp2 receive"),
        (READ, "gRPC and access"),
        ((*READ, "hr_call_begin", "hr_request_parse", "hr_read_varint"), "request parse"),
        ((*READ, "hr_parse_timeout"), "gRPC and access"),
        ((*READ, "hr_call_begin", "hr_resolve_rows", "hr_xxh3_64"), "lookup"),
        ((*READ, "hr_call_begin", "hr_measure_answer", "hr_varint_bytes"), "encode"),
        ((*READ, "hr_write_answer", "hr_write_groups", "memcpy"), "gather"),
        ((*READ, "hr_compute_rows", "hr_window_fold_all"), "compute"),
    ],
)
def test_innermost_known_function_decides(stack: tuple[str, ...], stage: str) -> None:
    assert stage_of(stack).name == stage


def test_shares_cover_every_sample() -> None:
    found = shares({LOOP: 1, (*READ, "hr_write_answer"): 3})
    assert {one.stage.name: one.share for one in found if one.share} == {"encode": 0.75, "loop": 0.25}


def alternatives(pattern: str) -> list[str]:
    """Parts between the bars that stand outside of parentheses."""
    parts, depth = [""], 0
    for sign in pattern:
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def test_every_rule_of_ours_names_a_function_of_the_headers(repository: Path) -> None:
    text = "".join(path.read_text() for path in sorted((repository / "core_ext/native").glob("*.h")))
    functions = set(re.findall(r"\b(hr_\w+)\(", text))
    rules = [part for stage in STAGES for part in alternatives(stage.pattern.pattern) if part.startswith("hr_")]
    assert len(rules) > 20, "the scan has lost the rules"
    assert [rule for rule in rules if not any(re.fullmatch(rule, name) for name in functions)] == []
