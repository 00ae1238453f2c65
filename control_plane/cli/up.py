"""`headrace up`: control plane, feature server and drain worker as one process tree on one data folder."""

import os
import queue
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final

from control_plane.cli.endpoints import ENDPOINTS_FILE, Endpoints, data_folder, read_endpoints
from control_plane.cli.output import Format, print_document, print_table
from control_plane.cli.processes import START_LIMIT_S, Child
from control_plane.cli.session import LAKE_FOLDER, Session
from control_plane.store.lock import locked_folder
from headrace.client.health import await_serving
from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument, Unavailable

CONTROL_PORT: Final = 6570
FEATURE_PORT: Final = 6571
CONTROL_METRICS_PORT: Final = 6580
FEATURE_METRICS_PORT: Final = 6581
HISTORY_PORT: Final = 6573
HISTORY_METRICS_PORT: Final = 6583
DRAIN_PORT: Final = 6572
DRAIN_METRICS_PORT: Final = 6582
ROW_LOG_BYTES: Final = 1 << 30  # disk for rows that are not drained: hours of writes of a small machine
PORT_TRIES_MAX: Final = 200  # enough for a machine that runs a hundred platforms
_PORT_MAX: Final = 65_535
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What a person may choose; ports that are None are searched for, or left to the system with any_ports."""

    port: int | None = None
    feature_port: int | None = None
    tokens: Path | None = None
    registry_token: Path | None = None
    import_roots: Sequence[Path] = ()
    any_ports: bool = False
    history: bool = False
    offline: bool = False
    offline_token: Path | None = None
    served_log_share: float = 0.0  # part of the reads that go offline as well
    function_modules: Sequence[str] = ()
    drain_words: Sequence[str] = ()  # more of the command line of the drain worker

    @property
    def has_drain(self) -> bool:
        """Whether rows go offline; behind tokens, only with one that the drain worker may show."""
        return self.offline and (self.tokens is None or self.offline_token is not None)


@dataclass(frozen=True, slots=True)
class Platform:
    """A running platform."""

    endpoints: Endpoints
    children: Sequence[Child]
    ended: "queue.SimpleQueue[str]"

    def death(self, name: str) -> Unavailable:
        """The error of a child that ended by itself."""
        child = next(child for child in self.children if child.name == name)
        return Unavailable(
            f"{child.death()}; the platform is stopped", reason="SERVER_ENDED", metadata={"server": name}
        )


def run(session: Session, options: UpOptions) -> int:
    """Runs until a signal (exit 0) or the death of a child, which stops the others and raises."""
    folder = data_folder(session.environment, session.data)
    try:
        with stoppable(), platform(folder, options) as running:
            _announce(session, folder, running.endpoints)
            raise running.death(running.ended.get())
    except StopAsked:
        return 0


class StopAsked(BaseException):
    """A signal asked for the end."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raises StopAsked at the first signal, wherever the block is; later ones wait for the end of the block."""
    # What the caller ignores stays ignored: nohup means that the end of a terminal is not the end of the platform.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not break off the stopping of children
        raise StopAsked

    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def platform(folder: Path, options: UpOptions = UpOptions()) -> Iterator[Platform]:
    """A platform that serves inside the block and is gone after it, children and endpoints file alike."""
    with ExitStack() as stack:
        stack.enter_context(locked(folder))
        _refuse_busy_ports(options)
        _refuse_half_of_the_tokens(options)
        _refuse_a_log_for_nobody(options)
        children: list[Child] = []
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        stack.callback(stop_all, children)
        tokens = ("--tokens", str(options.tokens)) if options.tokens else ()
        watching = ("--registry-token", str(options.registry_token)) if options.registry_token else ()
        roots = [part for root in options.import_roots for part in ("--import-root", str(root))]
        roots += [part for module in options.function_modules for part in ("--function-module", module)]
        launcher = Launcher(folder, children, ended, options.any_ports)
        control, control_metrics = launcher.start(
            "control plane", "control_plane", tokens, (options.port, CONTROL_PORT, CONTROL_METRICS_PORT)
        )
        logging: tuple[str, ...] = ("--row-log-bytes", str(ROW_LOG_BYTES)) if options.has_drain else ()
        if options.served_log_share:
            logging += ("--served-log-share", str(options.served_log_share))
        features, feature_metrics = launcher.start(
            "feature server",
            "feature_server",
            ("--registry", control, *tokens, *watching, *roots, *logging),
            (options.feature_port, FEATURE_PORT, FEATURE_METRICS_PORT),
        )
        endpoints = Endpoints(control, features, control_metrics, feature_metrics, os.getpid())
        if options.history:
            endpoints = _with_history(launcher, endpoints, options)
        if options.has_drain:
            shown = ("--token", str(options.offline_token)) if options.offline_token else ()
            drain, drain_metrics = launcher.start(
                "drain worker",
                "batch",
                ("--registry", control, "--features", features, *shown, *options.drain_words),
                (None, DRAIN_PORT, DRAIN_METRICS_PORT),
            )
            lake = str((folder / "batch").resolve())
            endpoints = replace(endpoints, drain=drain, metrics_drain=drain_metrics, lake=lake)
        stack.callback(lambda: (folder / ENDPOINTS_FILE).unlink(missing_ok=True))
        endpoints.write(folder)
        yield Platform(endpoints, children, ended)


def _with_history(launcher: "Launcher", endpoints: Endpoints, options: UpOptions) -> Endpoints:
    """Starts the historical service, which reads and writes files of callers below the import roots alone."""
    words = ["--lake", str(launcher.folder / LAKE_FOLDER), "--registry", endpoints.control]
    words += [part for root in options.import_roots for part in ("--root", str(root))]
    words += ["--tokens", str(options.tokens)] if options.tokens else []
    words += ["--registry-token", str(options.registry_token)] if options.registry_token else []
    ports = (None, HISTORY_PORT, HISTORY_METRICS_PORT)
    address, metrics = launcher.start("historical service", "batch.jobs", words, ports)
    return replace(endpoints, history=address, metrics_history=metrics)


def _refuse_half_of_the_tokens(options: UpOptions) -> None:
    if (options.tokens is None) == (options.registry_token is None):
        return
    raise InvalidArgument(
        "--tokens and --registry-token go together: the feature server shows the second one, a file that holds a token "
        "with REGISTRY_READ, to watch the registry",
        reason="TOKENS_INCOMPLETE",
        field="registry_token" if options.tokens else "tokens",
    )


def _refuse_a_log_for_nobody(options: UpOptions) -> None:
    if options.served_log_share and not options.has_drain:
        raise InvalidArgument(
            "--served-log-share needs an offline store to log to: leave --no-offline out, and with --tokens name "
            "--offline-token",
            reason="NO_OFFLINE_STORE",
            field="served_log_share",
        )


@dataclass(frozen=True, slots=True)
class Launcher:
    """What the servers of one platform share."""

    folder: Path
    children: list[Child]
    ended: "queue.SimpleQueue[str]"
    any_ports: bool

    def start(
        self, name: str, package: str, arguments: Sequence[str], ports: tuple[int | None, int, int], place: str = ""
    ) -> tuple[str, str]:
        """Addresses of a healthy server and of its metrics; ports are (asked, default, default of metrics).

        Between finding a port free and taking it another program may take it, so that one more try is made on
        ports that the system gives. `place` names its folder and its log, the package without one.
        """
        asked, port, metrics_port = ports
        if not self.any_ports:
            chosen = (asked or free_port(port), free_port(metrics_port))
            try:
                return self.await_healthy(self.begin(name, package, arguments, chosen, place))
            except Unavailable:
                self.children.pop().stop()
                self.ended.get()  # its end is not that of the platform
        return self.await_healthy(self.begin(name, package, arguments, (asked or 0, 0), place))

    def begin(
        self, name: str, package: str, arguments: Sequence[str], ports: tuple[int, int], place: str = ""
    ) -> Child:
        """Starts a server on its port and that of its metrics, and does not wait for it."""
        folder = place or package
        served = ("--data", str(self.folder / folder), "--port", str(ports[0]), "--metrics-port", str(ports[1]))
        log = self.folder / "logs" / f"{folder}.log"
        self.children.append(Child(name, f"{package}.app", [*served, *arguments], log, ended=self.ended))
        return self.children[-1]

    def await_healthy(self, child: Child) -> tuple[str, str]:
        """Addresses of a server that was begun and of its metrics, once it is healthy."""
        event = child.listening()
        address = str(event["address"])
        await_serving(address, START_LIMIT_S)
        return address, f"{_HOST}:{event.get('metrics_port')}"


def stop_all(children: Sequence[Child]) -> None:
    """Stops them in the opposite order of their start."""
    for child in reversed(children):
        child.stop()


def free_port(first: int) -> int:
    """The first port from `first` on that nobody listens on."""
    for port in range(first, min(first + PORT_TRIES_MAX, _PORT_MAX + 1)):
        if is_free(port):
            return port
    raise Unavailable(
        f"ports {first} to {first + PORT_TRIES_MAX - 1} are all in use; name a free one with --port",
        reason="NO_FREE_PORT",
        field="--port",
        metadata={"first": str(first)},
    )


def _refuse_busy_ports(options: UpOptions) -> None:
    refuse_busy_ports({"--port": options.port, "--feature-port": options.feature_port})


def refuse_busy_ports(named: Mapping[str, int | None]) -> None:
    """A port that a person named is used or refused, never replaced."""
    for option, port in named.items():
        if port is not None and not 0 < port <= _PORT_MAX:
            raise InvalidArgument(f"{option} {port} is not 1 to {_PORT_MAX}", reason="PORT", field=option)
        if port is not None and not is_free(port):
            raise FailedPrecondition(
                f"{option} {port} is in use; stop what listens there, or leave the option out",
                reason="PORT_IN_USE",
                field=option,
                metadata={"port": str(port)},
            )


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections that linger do not count
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the data folder; raises FailedPrecondition where a platform runs on it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(folder))
        except HeadraceError as error:
            if error.reason != "DATA_FOLDER_IN_USE":
                raise
            raise FailedPrecondition(
                f"a platform already runs on the data folder {folder}{_owner(folder)}; stop it, or name another "
                "folder with --data",
                reason="DATA_FOLDER_IN_USE",
                field="--data",
                metadata={"folder": str(folder)},
            ) from error
        yield


def _owner(folder: Path) -> str:
    try:
        endpoints = read_endpoints(folder)
    except HeadraceError:
        return ""
    return f" (process {endpoints.pid}, control plane at {endpoints.control})"


def _announce(session: Session, folder: Path, endpoints: Endpoints) -> None:
    if session.form is not Format.TABLE:
        print_document(asdict(endpoints), session.form, session.out)
    else:
        rows = [
            ("control plane", endpoints.control, f"http://{endpoints.metrics_control}/metrics"),
            ("feature server", endpoints.features, f"http://{endpoints.metrics_features}/metrics"),
        ]
        if endpoints.history:
            rows.append(("historical service", endpoints.history, f"http://{endpoints.metrics_history}/metrics"))
        if endpoints.drain:
            rows.append(("drain worker", endpoints.drain, f"http://{endpoints.metrics_drain}/metrics"))
        print_table(("server", "address", "metrics"), rows, session.out)
        session.out.write(f"ready on {folder}, logs in {folder / 'logs'}; stop with Ctrl-C\n")
    session.out.flush()
