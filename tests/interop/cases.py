"""What every client has to see, by the name of its case; clients report in the same form, whatever their language.

An error is {"code": name of the status, "reason" and "domain": of the ErrorInfo in grpc-status-details-bin}.
"""

from tests.unit.feature_server.parts import FEATURES, SERVICE


def error(code: str, reason: str) -> dict[str, str]:
    return {"code": code, "reason": reason, "domain": "headrace"}


THREE_USERS = {
    "rows": 3,
    "statuses": ["010103"],  # present, present, missing: the same in every column
    "ages": [30, 30, 0],
    "names": ["user 1", "user 2", ""],
}

EXPECTED: dict[str, object] = {
    "prepare": {
        "handle_bytes": 32,
        "columns": list(FEATURES),
        "join_keys": ["user_id"],
        "feature_service": f"{SERVICE}@v1",
    },
    "read": THREE_USERS,
    "read_by_handle": THREE_USERS,
    "large": {"rows": 10_000, "age_sum": 300_000},  # an answer of many flow control windows
    "errors": [
        error("INVALID_ARGUMENT", "NO_SELECTION"),
        error("NOT_FOUND", "UNKNOWN_FEATURE_SERVICE"),
        error("NOT_FOUND", "UNKNOWN_FEATURE_SERVICE"),  # of a method that the native loop forwards
    ],
    "unimplemented": "UNIMPLEMENTED",
    "tokens": [
        error("UNAUTHENTICATED", "TOKEN_REQUIRED"),
        error("UNAUTHENTICATED", "TOKEN_UNKNOWN"),
        error("PERMISSION_DENIED", "PERMISSION_DENIED"),
        error("PERMISSION_DENIED", "PERMISSION_DENIED"),  # a write by the reader
    ],
    # A stream that is left open is acknowledged as far as it came, then ends at its deadline.
    "deadline": {"held": "DEADLINE_EXCEEDED", "counts": [1], "passed": "DEADLINE_EXCEEDED", "alive": True},
    "gzip": 200,
    "cancel": {"codes": ["CANCELLED"], "alive": True},
    "concurrent": 100,
    "ingest": {"counts": [1, 1, 1], "code": "OK", "ages": [42, 43, 44]},
    "health": ["SERVING", "NOT_FOUND"],
}
