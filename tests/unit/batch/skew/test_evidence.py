"""Evidence from rows gives what the plain history gives, under every hypothesis, and so names the same causes."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pyarrow as pa
import pytest

from batch.offline import columns as system
from batch.skew.attribution import Cause, Finding, attribute
from batch.skew.evidence import LakeEvidence, ViewHistory
from batch.skew.served import Answer, Derivation, Edge, Knowledge, Rule, Served
from core_ext.keys import encode_key
from core_ext.twin import rules
from headrace.types import Scalar, parse_type
from tests.unit.batch.skew.faults import NAME, Situation, injected, situation
from tests.unit.batch.skew.history import History, View, answer

KEY = encode_key([int(Scalar.I64)], [1])
UTC = pa.timestamp("us", "UTC")
EDGES = (Edge.DECLARED, Edge.BEFORE_TIME, Edge.PAST_TIME)
DERIVATIONS = [
    *(Derivation(knowledge=known, version=version) for known, version in product(Knowledge, (0, 1, 3))),
    *(Derivation(expiry=rule) for rule in Rule),
    *(Derivation(defaulting=rule) for rule in Rule),
    *(Derivation(edge=edge) for edge in EDGES),
]


def latest(draw: random.Random) -> Situation:
    """A situation whose views are all `latest`."""
    while (here := situation(draw)).views[2].kind != "latest":
        continue
    return here


def table_of(history: History, view: View) -> pa.Table:
    """The rows beside those of two other entities, in a shuffled order."""
    rows = history.rows
    columns = {
        "user_id": [1] * len(rows) + [2, 3],
        "x": [None if r.amount is None else float(r.amount * view.factor + view.shift) for r in rows] + [1.0, 2.0],
        system.EVENT_TIME: pa.array([row.event_us for row in rows] + [0, 0], UTC),
        system.WRITE_TIME: pa.array([row.write_us for row in rows] + [0, 0], UTC),
        system.SOURCE_ID: pa.array([0] * (len(rows) + 2), pa.uint32()),
        system.PARTITION: pa.array([0] * (len(rows) + 2), pa.int32()),
        system.OFFSET: [row.offset for row in rows] + [0, 0],
        system.TOMBSTONE: [row.tombstone for row in rows] + [False, False],
    }
    order = list(range(len(rows) + 2))
    random.Random(len(rows)).shuffle(order)
    return pa.table(columns).take(order)


def evidence_of(history: History) -> LakeEvidence:
    versions = {}
    for number, view in history.views.items():
        table = table_of(history, view)

        def read(names: Sequence[str], table: pa.Table = table) -> pa.RecordBatchReader:
            return table.select(list(names)).to_reader(max_chunksize=3)

        versions[number] = ViewHistory(
            ref=f"{NAME}@v{number}",
            keys=(("user_id", Scalar.I64),),
            features={"x": parse_type("f64")},
            defaults={} if view.default is None else {"x": float(view.default)},
            ttl_us=view.ttl_us,
            fallback=view.fallback,
            digest=view.digest,
            read=read,
        )
    return LakeEvidence({NAME: versions})


def keyed(value: Served) -> Served:
    return replace(value, entity_key=KEY)


def test_every_hypothesis_gives_the_answer_of_the_plain_history(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(60):
        here = latest(draw)
        history = History(here.rows, here.views)
        served = [
            keyed(replace(here.served(Answer(rules.MISSING)), time_us=here.time_us - back, applied_offset=offset))
            for back, offset in ((0, here.applied_offset), (3_600_000_000, here.applied_offset), (0, 1))
        ]
        evidence = evidence_of(history)
        evidence.begin(served)
        for derivation in DERIVATIONS:
            assert list(evidence.derive(served, derivation)) == history.derive(served, derivation), derivation
        assert list(evidence.transform_digests(served)) == history.transform_digests(served)


def test_unknown_versions_and_features_answer_missing(seed: int) -> None:
    here = latest(random.Random(seed))
    evidence = evidence_of(History(here.rows, here.views))
    value = keyed(here.served(Answer(rules.MISSING)))
    other = replace(value, feature=replace(value.feature, feature="y"))
    evidence.begin([value, other])
    assert evidence.derive([value], Derivation(version=9))[0].state == rules.MISSING
    assert evidence.derive([other], Derivation())[0].state == rules.MISSING
    assert evidence.derive([], Derivation()) == []


CAUSES = [cause for cause in Cause if cause is not Cause.CODE]


@pytest.mark.parametrize("cause", CAUSES)
def test_injected_cause_is_named_as_by_the_plain_history(cause: Cause, seed: int) -> None:
    draw = random.Random(f"{seed} {cause}")
    found: Counter[bool] = Counter()
    while found.total() < 100:
        history, value = injected(cause, draw)
        if any(view.kind != "latest" for view in history.views.values()):
            continue
        expected: Finding = attribute([value], history)[0]
        evidence = evidence_of(history)
        evidence.begin([keyed(value)])
        finding = attribute([keyed(value)], evidence)[0]
        assert (finding.cause, finding.why) == (expected.cause, expected.why)
        found[finding.cause is cause] += 1
    assert found[True] >= 99


def test_answer_of_the_plain_history_matches(seed: int) -> None:
    here = latest(random.Random(seed))
    here = replace(here, rows=tuple(here.applied()))
    value = keyed(here.served(answer(here.rows, here.views[2], here.time_us)))
    evidence = evidence_of(History(here.rows, here.views))
    evidence.begin([value])
    assert attribute([value], evidence)[0].cause is None
