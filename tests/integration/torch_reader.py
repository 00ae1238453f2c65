"""Reads a training set through real PyTorch: `python -m tests.integration.torch_reader TORCH_FOLDER PARQUET`.

Prints one JSON object. PyTorch lies behind everything else in the path, so that libraries of ours stay as they are.
"""

import json
import sys
from itertools import chain
from typing import Any

from batch.training.stream import StreamPlan, TrainingStream
from headrace.torch_data import torch_dataset

BATCH_ROWS = 8
SEED = 5
TAKEN = 2
WORKERS = 2


def main(folder: str, parquet: str) -> None:
    sys.path.append(folder)
    import torch  # here, as its folder is known only now
    from torch.utils.data import DataLoader, IterableDataset

    def open_shard(shard: int, count: int) -> TrainingStream:
        return TrainingStream([parquet], plan=StreamPlan(BATCH_ROWS, SEED, shard, count))

    def loaded() -> list[dict[str, Any]]:  # Any: tensors of a library without a place in the type check
        return list(DataLoader(torch_dataset(open_shard), batch_size=None, num_workers=WORKERS))

    first, second = loaded(), loaded()
    broken = torch_dataset(open_shard)
    batches = iter(broken)
    head = [next(batches)["row"].tolist() for _ in range(TAKEN)]
    resumed = torch_dataset(open_shard)
    resumed.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    rest = [batch["row"].tolist() for batch in resumed]
    found = {
        "torch": torch.__version__,
        "is_dataset": isinstance(broken, IterableDataset),
        "types": sorted({f"{name} {tensor.dtype}" for batch in first for name, tensor in batch.items()}),
        "rows": list(chain.from_iterable(batch["row"].tolist() for batch in first)),
        "halves_agree": all(torch.equal(batch["row"] / 2, batch["half"]) for batch in first),
        "is_repeatable": all(torch.equal(one["row"], two["row"]) for one, two in zip(first, second, strict=True)),
        "resumed": list(chain.from_iterable(head + rest)),
        "whole": list(chain.from_iterable(batch["row"].tolist() for batch in torch_dataset(open_shard))),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
