"""Every error that Headrace raises or sends, as one tree.

HeadraceError
├── CallerError              the caller's mistake: change the request
│   ├── InvalidArgument      INVALID_ARGUMENT
│   ├── NotFound             NOT_FOUND
│   ├── AlreadyExists        ALREADY_EXISTS
│   ├── FailedPrecondition   FAILED_PRECONDITION
│   ├── Aborted              ABORTED              stale etag or revision
│   ├── PermissionDenied     PERMISSION_DENIED
│   └── Unauthenticated      UNAUTHENTICATED
├── PeerError                a peer or the machine failing: try again, or elsewhere
│   ├── Unavailable          UNAVAILABLE
│   ├── DeadlineExceeded     DEADLINE_EXCEEDED
│   ├── ResourceExhausted    RESOURCE_EXHAUSTED   a named bound was met
│   └── DataLoss             DATA_LOSS            stored bytes failed their checksum
└── InternalError            INTERNAL             our bug
"""

from collections.abc import Mapping
from typing import ClassVar, Final

ERROR_DOMAIN: Final = "headrace"
REASON_LENGTH_MAX: Final = 63  # google.rpc.ErrorInfo


class HeadraceError(Exception):
    """Root. `code` is the gRPC status name, `reason` UPPER_SNAKE, `field` the path of the bad field or empty.

    `metadata` holds every value quoted in the message; `retry_after_ms` is set where a retry helps.
    """

    code: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after_ms = retry_after_ms


class CallerError(HeadraceError):
    """The caller's mistake."""


class InvalidArgument(CallerError):
    """A field of the request is wrong whatever the state of the system."""

    code = "INVALID_ARGUMENT"


class NotFound(CallerError):
    """A name is not registered."""

    code = "NOT_FOUND"


class AlreadyExists(CallerError):
    """A name is taken."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(CallerError):
    """The request clashes with the state of the system; it may succeed after the state changed."""

    code = "FAILED_PRECONDITION"


class Aborted(CallerError):
    """The request was made against a state that is gone: read again and repeat."""

    code = "ABORTED"


class PermissionDenied(CallerError):
    """The principal may not do this."""

    code = "PERMISSION_DENIED"


class Unauthenticated(CallerError):
    """There is no valid principal."""

    code = "UNAUTHENTICATED"


class PeerError(HeadraceError):
    """A peer or the machine is failing."""


class Unavailable(PeerError):
    """Not reachable or not ready now."""

    code = "UNAVAILABLE"


class DeadlineExceeded(PeerError):
    """The time given ran out."""

    code = "DEADLINE_EXCEEDED"


class ResourceExhausted(PeerError):
    """A named bound was met: a queue, a size, the disk."""

    code = "RESOURCE_EXHAUSTED"


class DataLoss(PeerError):
    """Stored bytes failed their checksum."""

    code = "DATA_LOSS"


class InternalError(HeadraceError):
    """Our bug."""

    code = "INTERNAL"


def _leaves(root: type[HeadraceError]) -> list[type[HeadraceError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _leaves(child))]


BY_CODE: Final[Mapping[str, type[HeadraceError]]] = {
    error.code: error for error in _leaves(HeadraceError) if error.code != HeadraceError.code
}
