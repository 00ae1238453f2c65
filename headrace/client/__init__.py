"""The client for model servers."""

from headrace.client.aio import AsyncClient
from headrace.client.batch import FeatureBatch, OutputColumn, PreparedFeatures
from headrace.client.calls import Durability, EraseResult, ReadOptions, ValueState
from headrace.client.history import HistoricalJob, HistoryClient, JobState
from headrace.client.ingest import WriteResult, WriteToken
from headrace.client.inspection import Explanation, InspectionClient
from headrace.client.lineage import LineageClient
from headrace.client.registry import Plan, RegistryClient
from headrace.client.retries import RetryPolicy
from headrace.client.sync import Client
from headrace.client.tls import Tls

__all__ = [
    "AsyncClient",
    "Client",
    "Durability",
    "EraseResult",
    "Explanation",
    "FeatureBatch",
    "HistoricalJob",
    "HistoryClient",
    "InspectionClient",
    "JobState",
    "LineageClient",
    "OutputColumn",
    "Plan",
    "PreparedFeatures",
    "ReadOptions",
    "RegistryClient",
    "RetryPolicy",
    "Tls",
    "ValueState",
    "WriteResult",
    "WriteToken",
]
