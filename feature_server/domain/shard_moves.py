"""Why a shard on the move refuses."""

from typing import Final

from feature_server.domain.row_log import RowLog
from headrace.errors import DataLoss, FailedPrecondition, Unavailable

MOVING_RETRY_MS: Final = 1_000  # a small shard is copied in less


def moving(shard: int) -> Unavailable:
    """Why a shard takes no writes for a moment."""
    return Unavailable(
        f"shard {shard} is being copied to another server and takes no writes until that is done; try again",
        reason="SHARD_MOVING",
        metadata={"shard": str(shard)},
        retry_after_ms=MOVING_RETRY_MS,
    )


def other_snapshot(shard: int) -> DataLoss:
    """Why a snapshot that was installed is not served."""
    return DataLoss(
        f"the snapshot of shard {shard} holds other rows than its owner said; it is taken again",
        reason="SNAPSHOT_DAMAGED",
        metadata={"shard": str(shard)},
    )


def check_not_logged(shard: int, row_log: RowLog | None) -> None:
    """Raises where the rows of a shard wait to be drained."""
    if row_log is not None:
        raise FailedPrecondition(
            f"shard {shard} logs its rows for the offline store, and a ring would take them away; start the server "
            "without --row-log-bytes",
            reason="SHARD_LOGGED",
        )
