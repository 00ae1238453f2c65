"""How a shard changes hands, step by step."""

from dataclasses import replace

from control_plane.domain.ring.steps import JOINS_PER_SERVER_MAX, Known, Report, formed, next_ring
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard

A, B, C = (RingServer(name, f"{name}:1") for name in "abc")
ALL = {server.server_id: server for server in (A, B, C)}
SERVING_AB = RingShard((Replica("a", Phase.SERVING, 2), Replica("b", Phase.SERVING, 2)), 2, ("a", "b"))


def ring(*shards: RingShard, epoch: int = 5) -> Ring:
    return Ring(epoch, 2, {"a": A, "b": B}, shards)


def live(*names: str, **more: object) -> Known:
    return replace(Known(live=frozenset(names)), **more)  # type: ignore[arg-type]


def phases(shard: RingShard) -> dict[str, Phase]:
    return {replica.server_id: replica.phase for replica in shard.replicas}


def test_a_ring_is_formed_with_everybody_joining() -> None:
    made = formed([A, B, C], 8, 2)
    assert made.epoch == 1
    assert {replica.phase for shard in made.shards for replica in shard.replicas} == {Phase.JOINING}
    assert all(shard.owners == () and shard.owners_epoch == 0 for shard in made.shards)


def test_a_copy_serves_once_it_is_ready_in_its_phase() -> None:
    made = formed([A, B], 1, 2)
    ready = frozenset({Report(0, "a", 1)})
    after = next_ring(made, made.servers, live("a", "b", ready=ready))
    assert phases(after.shards[0]) == {"a": Phase.SERVING, "b": Phase.JOINING}
    assert (after.epoch, after.shards[0].owners_epoch) == (2, 2)


def test_a_ready_copy_of_another_phase_or_of_a_silent_server_does_not_serve() -> None:
    made = replace(formed([A, B], 1, 2), epoch=3)
    late = frozenset({Report(0, "a", 9)})
    assert next_ring(made, made.servers, live("a", "b", ready=late)) is made
    assert next_ring(made, made.servers, live("b", ready=frozenset({Report(0, "a", 1)}))) is made


def test_an_owner_leaves_only_when_all_that_replace_it_serve_and_are_live() -> None:
    shard = RingShard((*SERVING_AB.replicas, Replica("c", Phase.JOINING, 4)), 2, ("a", "c"))
    draining = {"a": A, "b": replace(B, is_draining=True), "c": C}
    held = replace(ring(shard), servers=draining)
    assert phases(next_ring(held, draining, live("a", "b", "c")).shards[0])["b"] is Phase.SERVING
    serving = replace(shard, replicas=(*SERVING_AB.replicas, Replica("c", Phase.SERVING, 5)))
    held = replace(held, shards=(serving,))
    assert phases(next_ring(held, draining, live("a", "b")).shards[0])["b"] is Phase.SERVING
    after = next_ring(held, draining, live("a", "b", "c"))
    assert phases(after.shards[0])["b"] is Phase.LEAVING
    assert set(after.shards[0].owners) == {"a", "c"}
    assert after.shards[0].owners_epoch == after.epoch


LEAVING = RingShard(
    (Replica("a", Phase.SERVING, 2), Replica("b", Phase.LEAVING, 5), Replica("c", Phase.SERVING, 4)), 5, ("a", "c")
)
DRAINING = {"a": A, "b": replace(B, is_draining=True), "c": C}


def test_a_leaving_copy_is_gone_when_every_live_server_holds_its_epoch() -> None:
    held = Ring(5, 2, DRAINING, (LEAVING,))
    waiting = live("a", "b", "c", held_epochs={"a": 5, "b": 4, "c": 5})
    assert next_ring(held, DRAINING, waiting) is held
    after = next_ring(held, DRAINING, live("a", "b", "c", held_epochs={"a": 5, "b": 5, "c": 5}))
    assert phases(after.shards[0]) == {"a": Phase.SERVING, "c": Phase.SERVING}
    assert "b" not in after.servers, "a drained server that holds nothing is out of the ring"
    assert after.shards[0].owners_epoch == 5, "the owners are those of before"


def test_a_leaving_copy_serves_again_where_its_successor_is_damaged() -> None:
    held = Ring(5, 2, DRAINING, (LEAVING,))
    damaged = frozenset({Report(0, "c", 4)})
    after = next_ring(held, DRAINING, live("a", "b", "c", damaged=damaged, held_epochs={"a": 5, "b": 5, "c": 5}))
    assert phases(after.shards[0])["b"] is Phase.SERVING


def test_a_damaged_owner_joins_anew_while_another_serves() -> None:
    held = ring(SERVING_AB)
    damaged = frozenset({Report(0, "a", 2)})
    after = next_ring(held, held.servers, live("a", "b", damaged=damaged))
    assert phases(after.shards[0]) == {"a": Phase.JOINING, "b": Phase.SERVING}
    assert next_ring(held, held.servers, live("a", damaged=damaged)) is held, "b may be gone: a stays what it is"
    both = damaged | {Report(0, "b", 2)}
    assert next_ring(held, held.servers, live("a", "b", damaged=both)) is held


def test_a_lost_server_is_replaced_and_owns_until_then() -> None:
    held = replace(ring(SERVING_AB), servers=ALL)
    after = next_ring(held, ALL, live("a", "c", lost=frozenset({"b"})))
    assert phases(after.shards[0]) == {"a": Phase.SERVING, "b": Phase.SERVING, "c": Phase.JOINING}
    assert set(after.shards[0].owners) == {"a", "b"}


def test_with_every_server_lost_nothing_moves() -> None:
    held = ring(SERVING_AB)
    assert next_ring(held, held.servers, Known(lost=frozenset("ab"))) is held


def test_a_server_copies_few_shards_at_a_time() -> None:
    shards = tuple(RingShard(SERVING_AB.replicas, 2, ("a", "b")) for _ in range(64))
    after = next_ring(ring(*shards), ALL, live("a", "b", "c"))
    joining = [shard for shard in after.shards if phases(shard).get("c") is Phase.JOINING]
    assert len(joining) == JOINS_PER_SERVER_MAX
    assert sum("c" in shard.target for shard in after.shards) == 42, "the others wait for their turn"


def test_at_rest_the_ring_is_the_same_object() -> None:
    held = ring(SERVING_AB)
    assert next_ring(held, held.servers, live("a", "b", held_epochs={"a": 5, "b": 5})) is held
