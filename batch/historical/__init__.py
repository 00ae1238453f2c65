"""The local engine of historical joins: point-in-time features of a spine, Parquet to Parquet, in bounded memory."""

from batch.historical.inputs import FeatureColumn, HistoryInput, KeyColumn
from batch.historical.join import MEMORY_LIMIT_BYTES, HistoricalJoin, JoinReport, join_to_parquet
from batch.historical.output import Digest

__all__ = [
    "MEMORY_LIMIT_BYTES",
    "Digest",
    "FeatureColumn",
    "HistoricalJoin",
    "HistoryInput",
    "JoinReport",
    "KeyColumn",
    "join_to_parquet",
]
