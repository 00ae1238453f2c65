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
from headrace.serving.certificates import URI_BYTES_MAX, ForwardedIdentities, identity_of, name_identity, uri_identity
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

    def authenticate(self, authorization: str, identity: bytes = b"") -> Principal:
        """Principal of an authorization header, without one of a certificate's identity; raises Unauthenticated."""

    def current_principal(self) -> Principal:
        """Principal of the call that this thread serves."""

    def digests(self, permission: str) -> frozenset[bytes] | None:
        """SHA-256 digests of the tokens whose bearers hold a permission; None where everybody does."""

    def identities(self, permission: str) -> frozenset[bytes]:
        """Identities of the certificates whose owners hold a permission."""


class OpenAuthenticator:
    """Everybody is LOCAL; for servers bound to loopback."""

    has_auth = False

    def authenticate(self, authorization: str, identity: bytes = b"") -> Principal:
        """LOCAL."""
        return LOCAL

    def current_principal(self) -> Principal:
        """LOCAL."""
        return LOCAL

    def digests(self, permission: str) -> frozenset[bytes] | None:
        """None: everybody holds every permission."""
        return None

    def identities(self, permission: str) -> frozenset[bytes]:
        """None are needed."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class _Token:
    digest: bytes
    principal: Principal


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a token file holds: tokens, and principals by the identity of their certificate."""

    tokens: Sequence[_Token]
    certificates: Mapping[bytes, Principal]


class TokenAuthenticator:
    """Principals by bearer token, or by certificate, from a YAML file that holds SHA-256 digests, never tokens.

    The file is read again when it changes; a file that became unreadable keeps the last good copy and is logged.
    """

    has_auth = True

    def __init__(self, path: Path, monotonic: Callable[[], float], log: EventLog) -> None:
        self._path = path
        self._monotonic = monotonic
        self._log = log
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._held = read_tokens(path)
        self._checked_s = monotonic()

    def authenticate(self, authorization: str, identity: bytes = b"") -> Principal:
        """Principal of "Bearer TOKEN", without a header that of the certificate; raises Unauthenticated.

        Every digest is compared, so that time tells nothing.
        """
        self._reread()
        if identity and not authorization:
            return self._owner(identity)
        token = authorization[len(_SCHEME) :] if authorization[: len(_SCHEME)].lower() == _SCHEME else ""
        if not token or len(token) > TOKEN_LENGTH_MAX:
            raise Unauthenticated(
                "the call carries no bearer token; send metadata 'authorization: Bearer TOKEN'",
                reason="TOKEN_REQUIRED",
            )
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known in self._held.tokens:
            if hmac.compare_digest(known.digest, digest):
                found = known.principal
        if found is None:
            raise Unauthenticated("the bearer token is not known; ask for a new one", reason="TOKEN_UNKNOWN")
        return found

    def _owner(self, identity: bytes) -> Principal:
        principal = self._held.certificates.get(identity)
        if principal is None:
            raise Unauthenticated(
                "the certificate names nobody that the token file knows; ask for an entry under certificates",
                reason="CERTIFICATE_UNKNOWN",
            )
        return principal

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
        last = {token.digest: token.principal for token in self._held.tokens}
        return frozenset(digest for digest, principal in last.items() if permission in principal.permissions)

    def identities(self, permission: str) -> frozenset[bytes]:
        """Identities of the certificates whose owners hold a permission, by the file as it is now."""
        self._reread(interval_s=0.0)
        held = self._held.certificates
        return frozenset(identity for identity, principal in held.items() if permission in principal.permissions)

    def _reread(self, interval_s: float = RECHECK_INTERVAL_S) -> None:
        now = self._monotonic()
        if now - self._checked_s < interval_s or not self._lock.acquire(blocking=False):
            return
        try:
            self._checked_s = now
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._held = read_tokens(self._path)
                self._stamp = stamp
                self._log.info("tokens_read", path=str(self._path), token_count=len(self._held.tokens))
        except (OSError, InvalidArgument) as error:
            self._log.error("tokens_unreadable", path=str(self._path), detail=str(error))
        finally:
            self._lock.release()


class AuthInterceptor(grpc.ServerInterceptor):
    """Refuses calls without a principal or its permission before their request is parsed."""

    def __init__(
        self,
        authenticator: Authenticator,
        permissions: Mapping[str, str],
        is_loopback: bool,
        *,
        forwarded: ForwardedIdentities | None = None,
        asks_peer: bool = False,
    ) -> None:
        self._authenticator = authenticator
        self._forwarded = forwarded
        self._asks_peer = asks_peer  # for its certificate, which gRPC tells when the handler runs and not before
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
        authorization = _authorization(details.invocation_metadata)
        if self._asks_peer and not authorization:
            return self._by_peer(method, continuation(details))
        try:
            identity = self._forwarded.read(details.invocation_metadata) if self._forwarded is not None else b""
            self._admit(method, authorization, identity)
        except HeadraceError as error:
            return _refusal(continuation(details), error)
        return continuation(details)

    def _admit(self, method: str, authorization: str, identity: bytes) -> None:
        principal = self._authenticator.authenticate(authorization, identity)
        permission = self._permissions.get(method)
        if permission is not None:
            principal.require(permission)
        _CURRENT.set(principal)

    def _by_peer(self, method: str, handler: "_Handler | None") -> "_Handler | None":
        """The handler behind the check of the peer's certificate, which comes before its request is parsed."""
        if handler is None:
            return None
        behaviour = _behaviour(handler)

        def admit(context: grpc.ServicerContext) -> None:
            try:
                self._admit(method, "", identity_of(context.auth_context()))
            except HeadraceError as error:
                context.abort_with_status(rpc_status.to_status(to_status(error)))

        def unary(request: Any, context: grpc.ServicerContext) -> Any:  # Any: bytes, as add_service has it
            admit(context)
            return behaviour(request, context)

        def stream(request: Any, context: grpc.ServicerContext) -> Any:
            admit(context)
            yield from behaviour(request, context)

        checked = stream if handler.response_streaming else unary
        return _handler_like(handler, checked, handler.request_deserializer, handler.response_serializer)


def read_tokens(path: Path) -> Credentials:
    """Credentials of a file of this form, of whose two lists one may be left out.

    tokens: [{sha256: HEX, principal: NAME, permissions: [FEATURE_READ]}]
    certificates: [{uri: URI, principal: NAME, permissions: [FEATURE_READ]}, {name: COMMON_NAME, ...}]
    """
    data = path.read_bytes()
    if len(data) > TOKEN_FILE_BYTES_MAX:
        raise _bad_file(f"has {len(data)} bytes; at most {TOKEN_FILE_BYTES_MAX} are allowed")
    try:
        document = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise _bad_file(f"is no YAML: {error}") from error
    if not isinstance(document, dict) or not set(document) & {"tokens", "certificates"}:
        document = {"tokens": None}
    tokens = [_token(entry, index) for index, entry in enumerate(_entries(document, "tokens"))]
    certificates: dict[bytes, Principal] = {}
    for index, entry in enumerate(_entries(document, "certificates")):
        identity, principal = _certificate(entry, f"certificates[{index}]")
        if identity in certificates:
            raise _bad_file(f"names the certificate of certificates[{index}] twice")
        certificates[identity] = principal
    return Credentials(tokens, certificates)


def _entries(document: Mapping[str, Any], name: str) -> Sequence[Any]:
    entries = document.get(name, [])
    if not isinstance(entries, list) or len(entries) > TOKEN_COUNT_MAX:
        raise _bad_file(f"must hold a list '{name}' of at most {TOKEN_COUNT_MAX} entries")
    return entries


def _token(entry: Any, index: int) -> _Token:  # Any: what YAML holds
    where = f"tokens[{index}]"
    if not isinstance(entry, dict) or set(entry) != {"sha256", "principal", "permissions"}:
        raise _bad_file(f"must hold sha256, principal, permissions in {where} alone")
    principal = _principal(entry, where)
    try:
        digest = bytes.fromhex(str(entry["sha256"]))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise _bad_file(f"must hold 64 hexadecimal digits as sha256 in {where}")
    return _Token(digest, principal)


def _certificate(entry: Any, where: str) -> tuple[bytes, Principal]:  # Any: what YAML holds
    kinds = {"uri": uri_identity, "name": name_identity}
    named = set(kinds) & set(entry) if isinstance(entry, dict) else set()
    if len(named) != 1 or set(entry) != {*named, "principal", "permissions"}:
        raise _bad_file(f"must hold uri or name, principal, permissions in {where} alone")
    kind = named.pop()
    identity = kinds[kind](entry[kind]) if isinstance(entry[kind], str) else b""
    if not identity:
        raise _bad_file(f"must hold text of at most {URI_BYTES_MAX} bytes as {kind} in {where}")
    return identity, _principal(entry, where)


def _principal(entry: Mapping[str, Any], where: str) -> Principal:
    name, permissions = entry["principal"], entry["permissions"]
    if not isinstance(name, str) or not name:
        raise _bad_file(f"has no principal in {where}")
    if not isinstance(permissions, list) or not all(isinstance(item, str) for item in permissions):
        raise _bad_file(f"must list permissions in {where}")
    unknown = sorted(set(permissions) - PERMISSIONS)
    if unknown:
        raise _bad_file(f"names unknown permission {unknown[0]!r} in {where}; known: {', '.join(sorted(PERMISSIONS))}")
    return Principal(name, frozenset(permissions))


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

    return _handler_like(handler, refuse)


def _behaviour(handler: "_Handler") -> Callable[..., Any]:  # Any: requests of every method
    found = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
    assert found is not None, "a handler has one behaviour"
    return found


def _handler_like(handler: "_Handler", behaviour: Callable[..., Any], *coders: Any) -> "_Handler":
    """A handler with the streams of another and a behaviour of its own; Any: as above."""
    if handler.request_streaming:
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
    else:
        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
    return make(behaviour, *coders)
