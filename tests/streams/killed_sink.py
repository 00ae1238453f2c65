"""A sink worker that kills itself around a commit: `python -m tests.streams.killed_sink before 2 ARGUMENT...`.

`before`: files are written, and the table does not know them. `after`: the table has them, and nobody was told.
"""

import os
import signal
import sys
from itertools import count

from pyiceberg.table import Table, Transaction

from batch.offline.event_columns import NAMESPACE
from batch.sink.app import main


def kill_at(when: str, number: int) -> None:
    """Arms the kill at the commit of that number."""
    commit = Transaction.commit_transaction
    numbers = count(1)

    def killing(self: Transaction) -> Table:
        is_last = self._table.name()[: len(NAMESPACE)] == NAMESPACE and next(numbers) == number
        if is_last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = commit(self)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Transaction.commit_transaction = killing  # type: ignore[method-assign]


if __name__ == "__main__":
    kill_at(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
