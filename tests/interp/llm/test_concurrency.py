import asyncio
from contextlib import AsyncExitStack

import pytest

from interp.llm.concurrency import LEAST, MOST, PLACE, START, Gate


def run(main):
    return asyncio.run(main)


async def in_line(gate, place, order, hold=0.0):
    PLACE.set(place)
    async with gate.slot():
        order.append(place)
        await asyncio.sleep(hold)


def test_never_more_than_the_limit_are_in_flight_and_the_budget_is_used_up():
    async def main():
        gate, most = Gate(3), 0

        async def one():
            nonlocal most
            async with gate.slot():
                most = max(most, gate.in_flight)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(one() for _ in range(20)))
        assert (most, gate.in_flight) == (3, 0)

    run(main())


def test_the_oldest_item_goes_first_however_late_it_comes():
    async def main():
        gate, order = Gate(1), []
        tasks = [asyncio.create_task(in_line(gate, place, order, 0.001)) for place in (9, 5, 7)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(in_line(gate, 1, order)))
        await asyncio.gather(*tasks)
        assert order == [9, 1, 5, 7]

    run(main())


def test_one_who_gives_up_waiting_takes_no_slot_with_him():
    async def main():
        gate, order = Gate(1), []
        async with gate.slot():
            waiting = asyncio.create_task(in_line(gate, 1, order))
            late = asyncio.create_task(in_line(gate, 2, order))
            await asyncio.sleep(0)
            waiting.cancel()
        await late
        assert (order, gate.in_flight) == ([2], 0)

    run(main())


def test_one_who_gives_up_just_when_his_turn_comes_passes_it_on():
    async def main():
        gate, order = Gate(1), []
        async with AsyncExitStack() as held:
            await held.enter_async_context(gate.slot())
            first = asyncio.create_task(in_line(gate, 1, order))
            second = asyncio.create_task(in_line(gate, 2, order))
            await asyncio.sleep(0)
        first.cancel()  # it was let in by the line above, and has not run since
        await second
        assert (order, gate.in_flight) == ([2], 0)

    run(main())


async def fill(gate, n_rounds, outcome):
    """Rounds of a full budget, each request ending by `outcome(gate, round)`."""
    for _ in range(n_rounds):
        async with AsyncExitStack() as held:
            rounds = [await held.enter_async_context(gate.slot()) for _ in range(gate.limit)]
            for sent_in in rounds:
                outcome(gate, sent_in)


def answered(gate, sent_in):
    gate.record_answer()


def throttled(gate, sent_in):
    gate.slow_down(sent_in, None)


def test_an_adaptive_budget_doubles_until_it_is_first_throttled_then_grows_by_one_a_round():
    async def main():
        gate = Gate()
        assert gate.limit == START
        await fill(gate, 1, answered)
        assert gate.limit == 2 * START
        await fill(gate, 1, throttled)
        assert gate.limit == START  # halved once for all that were in flight together
        await fill(gate, 3, answered)
        assert START + 2 <= gate.limit <= START + 3

    run(main())


def test_an_adaptive_budget_stays_within_its_bounds():
    async def main():
        gate = Gate()
        await fill(gate, 10, answered)
        assert gate.limit == MOST
        await fill(gate, 12, throttled)
        assert gate.limit == LEAST

    run(main())


def test_a_budget_that_is_hardly_used_does_not_grow():
    async def main():
        gate = Gate()
        for _ in range(50):
            async with gate.slot():
                gate.record_answer()
        assert gate.limit == START

    run(main())


def test_a_fixed_budget_stays_what_it_is():
    async def main():
        gate = Gate(16)
        await fill(gate, 2, answered)
        await fill(gate, 2, throttled)
        assert gate.limit == 16

    run(main())


def test_where_most_requests_are_turned_away_nothing_is_sent_before_the_time_is_over():
    async def main():
        gate = Gate(4)
        for _ in range(12):
            gate.slow_down(0, 0.05)
        loop = asyncio.get_running_loop()
        started = loop.time()
        order = []
        await asyncio.gather(*(in_line(gate, place, order) for place in (3, 1, 2)))
        assert loop.time() - started >= 0.05
        assert order == [1, 2, 3]

    run(main())


def test_a_few_requests_turned_away_do_not_hold_up_the_others():
    async def main():
        gate = Gate(4)
        for _ in range(10):
            gate.record_answer()
            gate.record_answer()
            gate.slow_down(0, 60.0)
        order = []
        await asyncio.wait_for(in_line(gate, 1, order), 1)
        assert order == [1]

    run(main())


@pytest.mark.parametrize("n_resting", [0, 5, 500])
def test_room_is_more_than_the_budget_and_bounded_whatever_rests(n_resting):
    gate = Gate(10)
    gate.n_resting = n_resting
    assert gate.limit + 8 <= gate.room() <= 8 * gate.limit


def test_who_rests_holds_no_slot():
    async def main():
        gate = Gate(1)
        resting = asyncio.create_task(gate.rest(0.05))
        await asyncio.sleep(0)
        order = []
        await in_line(gate, 1, order)
        assert (order, gate.n_resting) == ([1], 1)
        await resting
        assert gate.n_resting == 0

    run(main())
