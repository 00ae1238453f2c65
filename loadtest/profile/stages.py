"""Stages of a read: every stack belongs to the stage of its innermost frame that a rule knows."""

import re
from collections import Counter
from typing import Final, NamedTuple

from loadtest.profile.stacks import KERNEL, Folded, Stack


class Stage(NamedTuple):
    """A part of the work. A frame is of the stage where the pattern matches its whole name."""

    name: str
    what: str
    pattern: re.Pattern[str]


def _stage(name: str, what: str, *patterns: str) -> Stage:
    return Stage(name, what, re.compile("|".join(patterns)))


_CALL: Final = r"(?:__)?(?:libc_|x64_|se_|do_)?(?:sys_)?"

# Of a system call the frame of the C library is what counts, as the kernel below it is the same for sending, receiving
# and waiting where it wakes a peer or handles an interrupt.
STAGES: Final = (
    _stage("kernel receive", "`recv`: from the socket's queue into the loop's buffer", rf"{_CALL}(recv|recvfrom)"),
    _stage("kernel send", "`send`: TCP, loopback and the wake-up of the reader", rf"{_CALL}(send|sendto|sendmsg)"),
    _stage("epoll", "`epoll_wait`, `epoll_ctl`, and sleeping", rf"{_CALL}epoll_(wait|ctl|pwait)"),
    _stage(
        "nghttp2 receive",
        "frames, HPACK of the request, stream state",
        r"nghttp2_session_mem_recv\d?",
        r"hr_on_(begin_headers|header|data|close|frame)",
        r"hr_stream_\w+|hr_fields_\w+",
    ),
    _stage(
        "nghttp2 send",
        "HPACK of the answer, DATA frames, flow control",
        r"nghttp2_session_mem_send\d?|nghttp2_submit_\w+",
        r"hr_submit_answer|hr_answer_read|hr_on_sent",
    ),
    _stage(
        "gRPC and access",
        "path, deadline, token, permission, counters, memory of the answer",
        r"hr_is_ours_to_answer|hr_may\w*|hr_\w*permissions|hr_parse_timeout|hr_grpc_message|hr_method_of",
        r"hr_authorization|hr_is_sampled|hr_count_answer|hr_on_end",
        r"hr_serve_read|hr_answer_message|hr_call_(begin|end|leave)|hr_arena_\w+",
    ),
    _stage(
        "request parse", "protobuf of the request, in place", r"hr_request_parse|hr_parse_(?!timeout)\w+|hr_check_\w+"
    ),
    _stage(
        "lookup",
        "plan, key bytes, hash, row table, status of the rows",
        r"hr_resolve_\w+|hr_bind_\w+|hr_build_prefixes|hr_measure_prefixes|hr_table_\w+|hr_read_(begin|end)",
        r"hr_entry_\w+|hr_index_\w+|hr_settle_row|hr_call_plan|hr_plan_find|hr_prefetch_\w+|hr_xxh3_\w+",
    ),
    _stage(
        "compute",
        "windows and expressions of computed views",
        r"hr_image_\w+|hr_compute_rows|hr_computed_\w+|hr_window_\w+|hr_expression_\w+",
    ),
    _stage(
        "gather",
        "values and statuses out of the rows",
        r"hr_write_groups?\w*|hr_gather_(plain|mixed)|hr_write_variable|hr_write_event_times|hr_settle_value",
    ),
    _stage(
        "encode",
        "sizes and frames of the answer's columns",
        r"hr_measure_(answer|values)|hr_write_(answer|frame|rest|length|varint|field)|hr_sends_names",
    ),
)
REST: Final = Stage("loop", "buffers, allocation, locks and everything else of the loop", re.compile(""))


class Share(NamedTuple):
    """How much of the samples a stage took."""

    stage: Stage
    share: float


def stage_of(stack: Stack) -> Stage:
    """The stage of the innermost frame that a rule knows."""
    for frame in reversed(stack):
        name = frame.removesuffix(f" {KERNEL}")
        for stage in STAGES:
            if stage.pattern.fullmatch(name):
                return stage
    return REST


def shares(folded: Folded) -> list[Share]:
    """Every stage in the order of a read, with its share of the samples."""
    counts: Counter[str] = Counter()
    for stack, count in folded.items():
        counts[stage_of(stack).name] += count
    total = sum(counts.values())
    return [Share(stage, counts[stage.name] / total) for stage in (*STAGES, REST)]
