"""The C generator sends the bodies of its file in turn and tells good answers from errors."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from headrace.errors import Unavailable
from loadtest.peers.grpc_load import Aim, command, parse, program, run, write_bodies, write_keyed_body
from loadtest.peers.processes import Child
from protos.feature.v1 import online_feature_service_pb2 as pb

METHOD = "/test.v1.TestService/Echo"
ANSWER = b"a" * 40_000


class Echo:
    """Counts bodies; answers more than one frame, or an error to the body `bad`."""

    def __init__(self) -> None:
        self.seen: dict[bytes, int] = {}

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.seen[request] = self.seen.get(request, 0) + 1
        if request == b"bad":
            context.abort(grpc.StatusCode.INTERNAL, "no")
        return ANSWER


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program(tmp_path_factory.mktemp("tool"))


@pytest.fixture
def echo() -> Iterator[tuple[int, Echo]]:
    handler = Echo()
    server = grpc.server(ThreadPoolExecutor(2))
    call: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.v1.TestService", {"Echo": call}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, handler
    server.stop(0).wait()


def aim(port: int, folder: Path, messages: list[bytes], least: int = len(ANSWER)) -> Aim:
    write_bodies(folder / "bodies", messages)
    return Aim(port, METHOD, folder / "bodies", least)


def test_every_body_is_sent_in_turn(tool: Path, echo: tuple[int, Echo], tmp_path: Path) -> None:
    port, handler = echo
    answers = run(tool, aim(port, tmp_path, [b"one", b"two", b"three"]), rate=300, duration_s=0.5)
    assert (answers.answered, answers.failed) == (150, 0)
    assert handler.seen == {b"one": 50, b"two": 50, b"three": 50}


def test_closed_loop_keeps_going_past_the_first_windows(tool: Path, echo: tuple[int, Echo], tmp_path: Path) -> None:
    port, _ = echo
    answers = run(tool, aim(port, tmp_path, [b"x" * 8_000]), rate=0, duration_s=1)
    assert answers.failed == 0
    assert answers.answered > 8 * 65_535 / 8_000, "each connection sent more than its first flow-control window"
    assert 0 < answers.p50_us <= answers.p99_us <= answers.max_us


def test_keys_are_written_into_the_body_in_turn(tool: Path, echo: tuple[int, Echo], tmp_path: Path) -> None:
    port, handler = echo

    def request(key: int) -> bytes:
        return pb.EntityColumn(join_key="user_id", int64_values=[key]).SerializeToString()

    keys = [0, 1, 127, 128, 7_399_999, (1 << 32) - 1]
    (tmp_path / "keys").write_bytes(np.array(keys, dtype="<u4").tobytes())
    place = write_keyed_body(tmp_path / "bodies", request)
    keyed = Aim(port, METHOD, tmp_path / "bodies", len(ANSWER), keys=(tmp_path / "keys", place))
    answers = run(tool, keyed, rate=300, duration_s=0.1)
    assert (answers.answered, answers.failed) == (30, 0)
    seen = {tuple(pb.EntityColumn.FromString(body).int64_values): count for body, count in handler.seen.items()}
    assert seen == {(key,): 30 // len(keys) for key in keys}


def test_errors_and_short_answers_are_failures(tool: Path, echo: tuple[int, Echo], tmp_path: Path) -> None:
    port, _ = echo
    mixed = run(tool, aim(port, tmp_path, [b"bad", b"good"]), rate=100, duration_s=0.4)
    assert (mixed.answered, mixed.failed) == (20, 20)
    short = run(tool, aim(port, tmp_path, [b"good"], len(ANSWER) + 100), rate=100, duration_s=0.2)
    assert (short.answered, short.failed) == (0, 20)


def test_no_server_is_reported(tool: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="load generator failed"):
        run(tool, aim(1, tmp_path, [b"x"]), rate=10, duration_s=0.1)


def test_command_states_port_rate_and_length(tmp_path: Path) -> None:
    words = command(Path("tool"), Aim(70, METHOD, tmp_path, 9), 12.5, 3)
    assert words == ["tool", "70", METHOD, str(tmp_path), "8", "12.5", "3", "9"]


def test_a_run_that_is_ended_early_says_what_it_held(tool: Path, echo: tuple[int, Echo], tmp_path: Path) -> None:
    port, _ = echo
    line = command(tool, aim(port, tmp_path, [b"one"]), 200, 60)
    with Child(line, tmp_path / "load.log") as child:
        time.sleep(1.0)
    answers = parse(child.log.read_text())
    assert answers.failed == 0
    assert 150 < answers.rate <= 210
