"""Turns the credentials of a call into a principal."""

import hashlib
import hmac
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import grpc
import yaml
from grpc_status import rpc_status

from headrace.errors import HeadraceError, InvalidArgument, Unauthenticated
from headrace.serving.logging import EventLog
from headrace.serving.principal import LOCAL, PERMISSIONS, Principal
from headrace.status import to_status

TOKEN_FILE_BYTES_MAX: Final = 1 << 20  # a thousand entries with room
TOKEN_COUNT_MAX: Final = 1_000  # every one is compared at each call
TOKEN_LENGTH_MAX: Final = 4_096  # characters; below gRPC's limit on metadata
RECHECK_INTERVAL_S: Final = 1.0  # a revoked token is refused after at most this long
OPEN_SERVICES: Final = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # Any: handlers of every method

_HEADER: Final = "authorization"
_SCHEME: Final = "bearer "
_CURRENT: ContextVar[Principal] = ContextVar("headrace_principal")


class Authenticator(Protocol):
    """Tells who calls."""

    @property
    def has_auth(self) -> bool:
        """Whether callers must show who they are."""

    def authenticate(self, authorization: str) -> Principal:
        """Principal of an authorization header; raises Unauthenticated."""

    def current_principal(self) -> Principal:
        """Principal of the call that this thread serves."""

    def digests(self, permission: str) -> frozenset[bytes] | None:
        """SHA-256 digests of the tokens whose bearers hold a permission; None where everybody does."""


class OpenAuthenticator:
    """Everybody is LOCAL; for servers bound to loopback."""

    has_auth = False

    def authenticate(self, authorization: str) -> Principal:
        """LOCAL."""
        return LOCAL

    def current_principal(self) -> Principal:
        """LOCAL."""
        return LOCAL

    def digests(self, permission: str) -> frozenset[bytes] | None:
        """None: everybody holds every permission."""
        return None


@dataclass(frozen=True, slots=True)
class _Token:
    digest: bytes
    principal: Principal


class TokenAuthenticator:
    """Principals by bearer token from a YAML file that holds SHA-256 digests, never tokens.

    The file is read again when it changes; a file that became unreadable keeps the last good copy and is logged.
    """

    has_auth = True

    def __init__(self, path: Path, monotonic: Callable[[], float], log: EventLog) -> None:
        self._path = path
        self._monotonic = monotonic
        self._log = log
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._tokens = read_tokens(path)
        self._checked_s = monotonic()

    def authenticate(self, authorization: str) -> Principal:
        """Principal of "Bearer TOKEN"; raises Unauthenticated. Every digest is compared, so that time tells nothing."""
        self._reread()
        token = authorization[len(_SCHEME) :] if authorization[: len(_SCHEME)].lower() == _SCHEME else ""
        if not token or len(token) > TOKEN_LENGTH_MAX:
            raise Unauthenticated(
                "the call carries no bearer token; send metadata 'authorization: Bearer TOKEN'",
                reason="TOKEN_REQUIRED",
            )
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known in self._tokens:
            if hmac.compare_digest(known.digest, digest):
                found = known.principal
        if found is None:
            raise Unauthenticated("the bearer token is not known; ask for a new one", reason="TOKEN_UNKNOWN")
        return found

    def current_principal(self) -> Principal:
        """Principal that the interceptor found; raises Unauthenticated outside of a call."""
        principal = _CURRENT.get(None)
        if principal is None:
            raise Unauthenticated("there is no principal outside of a call", reason="TOKEN_REQUIRED")
        return principal

    def digests(self, permission: str) -> frozenset[bytes] | None:
        """Digests of the tokens whose bearers hold a permission, by the file as it is now."""
        self._reread(interval_s=0.0)
        # Of two entries with one digest the last decides, as in `authenticate`.
        last = {token.digest: token.principal for token in self._tokens}
        return frozenset(digest for digest, principal in last.items() if permission in principal.permissions)

    def _reread(self, interval_s: float = RECHECK_INTERVAL_S) -> None:
        now = self._monotonic()
        if now - self._checked_s < interval_s or not self._lock.acquire(blocking=False):
            return
        try:
            self._checked_s = now
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._tokens = read_tokens(self._path)
                self._stamp = stamp
                self._log.info("tokens_read", path=str(self._path), token_count=len(self._tokens))
        except (OSError, InvalidArgument) as error:
            self._log.error("tokens_unreadable", path=str(self._path), detail=str(error))
        finally:
            self._lock.release()


class AuthInterceptor(grpc.ServerInterceptor):
    """Refuses calls without a principal or its permission before their request is parsed."""

    def __init__(self, authenticator: Authenticator, permissions: Mapping[str, str], is_loopback: bool) -> None:
        self._authenticator = authenticator
        self._permissions = permissions
        self._open_services = OPEN_SERVICES if is_loopback else frozenset()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "_Handler | None"],
        details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """The handler of the method, or one that only refuses."""
        method = details.method
        if method.rpartition("/")[0].lstrip("/") in self._open_services:
            return continuation(details)
        try:
            principal = self._authenticator.authenticate(_authorization(details.invocation_metadata))
            permission = self._permissions.get(method)
            if permission is not None:
                principal.require(permission)
        except HeadraceError as error:
            return _refusal(continuation(details), error)
        _CURRENT.set(principal)
        return continuation(details)


def read_tokens(path: Path) -> Sequence[_Token]:
    """Tokens of a file of the form `tokens: [{sha256: HEX, principal: NAME, permissions: [FEATURE_READ]}]`."""
    data = path.read_bytes()
    if len(data) > TOKEN_FILE_BYTES_MAX:
        raise _bad_file(f"has {len(data)} bytes; at most {TOKEN_FILE_BYTES_MAX} are allowed")
    try:
        document = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise _bad_file(f"is no YAML: {error}") from error
    entries = document.get("tokens") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > TOKEN_COUNT_MAX:
        raise _bad_file(f"must hold a list 'tokens' of at most {TOKEN_COUNT_MAX} entries")
    return [_token(entry, index) for index, entry in enumerate(entries)]


def _token(entry: Any, index: int) -> _Token:  # Any: what YAML holds
    where = f"tokens[{index}]"
    if not isinstance(entry, dict) or set(entry) != {"sha256", "principal", "permissions"}:
        raise _bad_file(f"must hold sha256, principal, permissions in {where} alone")
    name, permissions = entry["principal"], entry["permissions"]
    if not isinstance(name, str) or not name:
        raise _bad_file(f"has no principal in {where}")
    if not isinstance(permissions, list) or not all(isinstance(item, str) for item in permissions):
        raise _bad_file(f"must list permissions in {where}")
    unknown = sorted(set(permissions) - PERMISSIONS)
    if unknown:
        raise _bad_file(f"names unknown permission {unknown[0]!r} in {where}; known: {', '.join(sorted(PERMISSIONS))}")
    try:
        digest = bytes.fromhex(str(entry["sha256"]))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise _bad_file(f"must hold 64 hexadecimal digits as sha256 in {where}")
    return _Token(digest, Principal(name, frozenset(permissions)))


def _bad_file(problem: str) -> InvalidArgument:
    return InvalidArgument(f"the token file {problem}", reason="TOKEN_FILE", field="tokens")


def _stamp(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _authorization(metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
    for key, value in metadata or ():
        if key == _HEADER:
            return value if isinstance(value, str) else value.decode("utf-8", "replace")
    return ""


def _refusal(handler: "_Handler | None", error: HeadraceError) -> "_Handler | None":
    if handler is None:
        return None
    status = rpc_status.to_status(to_status(error))

    def refuse(request: object, context: grpc.ServicerContext) -> None:
        context.abort_with_status(status)

    if handler.request_streaming:
        return (
            grpc.stream_stream_rpc_method_handler(refuse)
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler(refuse)
        )
    return (
        grpc.unary_stream_rpc_method_handler(refuse)
        if handler.response_streaming
        else grpc.unary_unary_rpc_method_handler(refuse)
    )
