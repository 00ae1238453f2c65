"""Channel settings, method names and headers that both clients use."""

from typing import Final

from headrace.errors import InvalidArgument

SERVICE: Final = "/headrace.feature.v1.OnlineFeatureService/"
INGEST: Final = SERVICE + "IngestFeatures"
RESPONSE_BYTES_MAX: Final = 256 << 20  # 10,000 rows x 2,000 features x 9 bytes, and room for text
REQUEST_BYTES_MAX: Final = 64 << 20  # 10,000 rows with keys of 1,024 bytes, and room for batches of writes
KEEPALIVE_MS: Final = 30_000  # gRPC servers refuse pings sent more often than every 10 s
KEEPALIVE_TIMEOUT_MS: Final = 20_000  # gRPC's default

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
    ("grpc.max_send_message_length", REQUEST_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.enable_retries", 0),  # retries are ours, with one budget for the whole client
)


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Headers of every call."""
    if token is None:
        return ()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument(
            "the token holds characters that a header cannot carry; pass printable ASCII without blanks",
            reason="TOKEN_CHARACTERS",
            field="token",
        )
    return (("authorization", f"Bearer {token}"),)
