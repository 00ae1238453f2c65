"""A training set as a PyTorch IterableDataset; the extra `torch` of the package."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final, Protocol

import pyarrow as pa

from headrace.history import ArrowStream

Batch = Any  # what `convert` makes; by default a dictionary of tensors, whose library is optional
OpenShard = Callable[[int, int], ArrowStream]
_TORCH: Final = "torch"


class Rows:
    """The batches of one shard of a training set; the whole of what the dataset does, without PyTorch.

    `open_shard` opens shard i of n. `worker` says which of the loader's workers this process is, (0, 1) for none.
    """

    def __init__(
        self,
        open_shard: OpenShard,
        convert: Callable[[pa.RecordBatch], Batch],
        worker: Callable[[], tuple[int, int]],
    ) -> None:
        self._open_shard = open_shard
        self._convert = convert
        self._worker = worker
        self._stream: ArrowStream | None = None
        self._state: Mapping[str, Any] | None = None  # Any: JSON values

    def __iter__(self) -> Iterator[Batch]:
        stream = self._opened()
        for batch in stream:
            yield self._convert(batch)

    def state_dict(self) -> Mapping[str, Any]:  # Any: as above
        """Where this worker stands, for `load_state_dict` of the same worker."""
        return self._opened().state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # Any: as above
        """Goes on where the state was taken."""
        self._state, self._stream = state, None

    def _opened(self) -> ArrowStream:
        if self._stream is None:
            self._stream = self._open_shard(*self._worker())
            if self._state is not None:
                self._stream.restore(self._state)
        return self._stream


class _WorkerInfo(Protocol):
    id: int
    num_workers: int


def torch_dataset(open_shard: OpenShard, convert: Callable[[pa.RecordBatch], Batch] | None = None) -> Any:
    """An IterableDataset; each worker of a DataLoader reads its own shard. Give the DataLoader batch_size=None.

    `open_shard` is such as `lambda i, n: stream_training_set("week", seed=1, shard=i, shard_count=n)`. Any: the class
    of a library that may not be installed.
    """
    torch = import_module(_TORCH)
    data = import_module(f"{_TORCH}.utils.data")

    def tensors(batch: pa.RecordBatch) -> Batch:
        numbers = [name for name in batch.schema.names if _is_number(batch.schema.field(name).type)]
        return {name: torch.from_numpy(batch.column(name).to_numpy(zero_copy_only=False).copy()) for name in numbers}

    def worker() -> tuple[int, int]:
        info: _WorkerInfo | None = data.get_worker_info()
        return (0, 1) if info is None else (info.id, info.num_workers)

    # Made by a call, as the base class is known only where the library is installed.
    dataset = type("TrainingDataset", (Rows, data.IterableDataset), {"__doc__": "Rows as PyTorch takes them."})
    return dataset(open_shard, convert or tensors, worker)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
