"""The core that is measured alone holds every row and answers it right."""

import numpy as np

from core_ext.row_table import RowTable
from loadtest.calls import Calls
from loadtest.dataset import SCENARIOS
from loadtest.peers.core_cpu import HANDLE, build
from loadtest.peers.memory import fill, view_rows


def test_core_answers_the_rows_of_its_table() -> None:
    core = build(entity_count=300)
    calls = Calls(SCENARIOS["100x200"], 300, seed=1, handle=HANDLE)
    for users, request in calls.stream(3):
        answer = core.serve(request, 1)
        assert isinstance(answer, bytes)
        assert calls.faults(users, answer) == []


def test_fill_puts_four_rows_of_each_entity_into_the_table() -> None:
    table = RowTable(64 << 20)
    assert len(list(fill(table, 50))) == 4
    assert table.stats()["row_count"] == 200


def test_rows_of_a_view_have_one_key_each() -> None:
    schema, storage_keys, rows = view_rows(2, np.arange(7, dtype=np.int64))
    assert schema.column_count == 50
    assert len(set(storage_keys)) == len(rows) == 7
