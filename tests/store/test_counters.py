import math
from functools import partial

import pytest
import trio

from rtpipe.store import Namespace, OverLimit, Store, UnknownReservation


async def test_a_counter_starts_at_zero_and_adds_up(space: Namespace) -> None:
    assert await space.counter("a") == 0
    assert await space.add("a", 5) == 5
    assert await space.add("a", -2) == 3
    assert await space.counter("a") == 3


async def test_reserve_counts_on_every_key_and_settle_replaces_it(space: Namespace) -> None:
    await space.add("day", 10)
    assert await space.reserve({"day": 100, "all": None}, 50, id="r") == {"day": 60, "all": 50}
    assert await space.settle("r", 7) == 7
    assert (await space.counter("day"), await space.counter("all")) == (17, 7)


async def test_the_limit_itself_may_be_reached(space: Namespace) -> None:
    await space.reserve({"day": 100}, 100, id="r")
    await space.reserve({"day": 100}, 0, id="nothing more")


async def test_over_one_limit_nothing_is_reserved_anywhere(space: Namespace) -> None:
    await space.add("month", 60)
    with pytest.raises(OverLimit) as caught:
        await space.reserve({"day": 100, "month": 100, "all": None}, 41, id="r")
    refused = caught.value
    assert (refused.key, refused.limit, refused.total, refused.amount) == ("month", 100, 60, 41)
    assert [await space.counter(key) for key in ("day", "month", "all")] == [0, 60, 0]
    assert await space.unsettled() == []
    with pytest.raises(UnknownReservation):
        await space.settle("r", 1)


async def test_the_real_amount_may_be_more_than_the_limit(space: Namespace) -> None:
    await space.reserve({"day": 10}, 10, id="r")
    await space.settle("r", 25)
    with pytest.raises(OverLimit):
        await space.reserve({"day": 10}, 0, id="s")


async def test_the_same_reservation_again_counts_once_and_asks_no_limit(space: Namespace) -> None:
    await space.reserve({"day": 10}, 10, id="r")
    assert await space.reserve({"day": 10}, 10, id="r") == {"day": 10}


@pytest.mark.parametrize(
    ("keys", "amount"), [({"day": None}, 11), ({"day": None, "all": None}, 10), ({"x": None}, 10)]
)
async def test_an_id_stands_for_one_reservation(space: Namespace, keys: dict[str, None], amount: int) -> None:
    await space.reserve({"day": None}, 10, id="r")
    with pytest.raises(ValueError, match="open with another amount"):
        await space.reserve(keys, amount, id="r")
    assert await space.counter("day") == 10


async def test_a_settled_id_is_not_reserved_again(space: Namespace) -> None:
    await space.reserve({"day": None}, 10, id="r")
    await space.settle("r", 10)
    with pytest.raises(ValueError, match="is settled"):
        await space.reserve({"day": None}, 10, id="r")


async def test_the_first_settlement_stands(space: Namespace) -> None:
    await space.reserve({"day": None}, 10, id="r")
    assert await space.settle("r", 4) == 4
    assert await space.settle("r", 9) == 4
    assert await space.counter("day") == 4


async def test_a_settled_id_is_known_for_an_hour(space: Namespace, clock) -> None:
    await space.reserve({"day": None}, 10, id="r")
    await space.settle("r", 4)
    clock.time += 3599
    assert await space.settle("r", 4) == 4
    clock.time += 1
    with pytest.raises(UnknownReservation):
        await space.settle("r", 4)
    assert await space.counter("day") == 4


async def test_unsettled_lists_the_oldest_first(space: Namespace, clock) -> None:
    await space.reserve({"a": None, "b": None}, 1, id="old", note="session 7")
    clock.time += 60
    await space.reserve({"a": None}, 2, id="new")
    await space.reserve({"a": None}, 3, id="settled")
    await space.settle("settled", 3)
    assert [found.id for found in await space.unsettled()] == ["old", "new"]
    (old,) = await space.unsettled(older_than_s=60)
    assert (old.id, old.amount, old.keys, old.note, old.made_at) == (
        "old",
        1,
        ("a", "b"),
        "session 7",
        clock.time - 60,
    )


async def test_open_reservations_count_after_a_restart(path, clock) -> None:
    async with await Store.open(path, now=clock) as store:
        await store.namespace("one").reserve({"day": 100}, 80, id="r")
    async with await Store.open(path, now=clock) as store:
        space = store.namespace("one")
        assert [found.id for found in await space.unsettled()] == ["r"]
        with pytest.raises(OverLimit):
            await space.reserve({"day": 100}, 21, id="s")
        await space.settle("r", 5)
        assert await space.counter("day") == 5


async def test_a_counter_ends_with_its_period(space: Namespace, clock) -> None:
    await space.add("day", 5, expires_at=clock.time + 10)
    await space.add("day", 1, expires_at=clock.time + 99)  # the first end stands
    clock.time += 10
    assert await space.counter("day") == 0
    assert await space.add("day", 2) == 2


async def test_a_reservation_of_the_last_period_is_not_settled_on_the_next(space: Namespace, clock) -> None:
    await space.reserve({"day": None, "all": None}, 50, id="r", expires_at={"day": clock.time + 10})
    clock.time += 10
    await space.add("day", 1)
    await space.settle("r", 30)
    assert (await space.counter("day"), await space.counter("all")) == (1, 30)


async def test_that_holds_for_the_newest_counter_too(space: Namespace, clock) -> None:
    await space.reserve({"day": None}, 50, id="r", expires_at={"day": clock.time + 10})
    clock.time += 10
    await space.add("day", 1)
    assert await space.settle("r", 30) == 30
    assert await space.counter("day") == 1


async def test_a_reservation_lasts_as_long_as_its_last_counter(space: Namespace, clock) -> None:
    ends = {"day": clock.time + 10, "month": clock.time + 10_000}
    await space.reserve({"day": None, "month": None}, 50, id="r", expires_at=ends)
    clock.time += 9_999
    await space.settle("r", 30)
    assert await space.counter("month") == 30


async def test_a_reservation_is_forgotten_an_hour_after_its_last_counter(space: Namespace, clock) -> None:
    await space.reserve({"day": None}, 5, id="r", expires_at={"day": clock.time + 10})
    clock.time += 10 + 3599
    assert len(await space.unsettled()) == 1
    clock.time += 1
    assert await space.unsettled() == []
    with pytest.raises(UnknownReservation):
        await space.settle("r", 1)
    await space.reserve({"day": None}, 6, id="r")
    assert await space.counter("day") == 6


async def test_on_an_endless_counter_a_reservation_is_never_forgotten(space: Namespace, clock) -> None:
    await space.reserve({"day": None, "all": None}, 5, id="r", expires_at={"day": clock.time + 10})
    clock.time += 10_000_000
    assert len(await space.unsettled()) == 1
    assert await space.settle("r", 2) == 2
    assert await space.counter("all") == 2


async def test_a_refused_reservation_leaves_no_counter_behind(space: Namespace, clock) -> None:
    with pytest.raises(OverLimit):
        await space.reserve({"new": None, "all": 0}, 1, id="r", expires_at={"new": clock.time + 10})
    await space.add("new", 1)
    clock.time += 10
    assert await space.counter("new") == 1


async def test_namespaces_do_not_see_each_other(store: Store) -> None:
    one, two = store.namespace("one"), store.namespace("two")
    await one.reserve({"day": None}, 5, id="r")
    await two.reserve({"day": None}, 7, id="r")
    await one.settle("r", 1)
    assert (await one.counter("day"), await two.counter("day")) == (1, 7)
    assert [found.amount for found in await two.unsettled()] == [7]


async def test_sums_do_not_overflow_into_floats(space: Namespace) -> None:
    await space.add("a", 2**63 - 1)
    with pytest.raises(OverflowError):
        await space.add("a", 1)
    with pytest.raises(OverflowError):
        await space.reserve({"b": None, "c": None}, 2**63, id="r")
    assert [await space.counter(key) for key in "abc"] == [2**63 - 1, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (({"a": None}, 1.5), TypeError),
        (({"a": None}, True), TypeError),
        (({"a": 1.5}, 1), TypeError),
        (({"a": None}, -1), ValueError),
        (({}, 1), ValueError),
        (({"": None}, 1), ValueError),
        (({"k" * 513: None}, 1), ValueError),
        (({"\ud800": None}, 1), ValueError),
    ],
)
async def test_wrong_arguments_are_refused(space: Namespace, arguments, error) -> None:
    with pytest.raises(error):
        await space.reserve(*arguments, id="r")
    with pytest.raises(UnknownReservation):
        await space.settle("r", 0)


async def test_other_wrong_arguments_are_refused(space: Namespace, store: Store) -> None:
    with pytest.raises(TypeError):
        await space.add("a", math.pi)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        await space.settle("r", -1)
    with pytest.raises(ValueError, match="expires_at for a key"):
        await space.reserve({"a": None}, 1, id="r", expires_at={"b": 1.0})
    with pytest.raises(ValueError):
        store.namespace("")


async def test_fifty_tasks_never_pass_one_limit(space: Namespace) -> None:
    granted: list[str] = []

    async def spend(id: str) -> None:
        try:
            total = await space.reserve({id: None, "all": 1000}, 30, id=id)
        except OverLimit:
            return
        assert total["all"] <= 1000
        granted.append(id)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(spend, f"t{number}")
    assert len(granted) == 33
    assert await space.counter("all") == 990
    async with trio.open_nursery() as nursery:
        for id in granted:
            nursery.start_soon(partial(space.settle, id, 10))
    assert await space.counter("all") == 330
