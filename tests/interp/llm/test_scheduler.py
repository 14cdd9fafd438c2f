import asyncio
import json
from dataclasses import dataclass

import pytest

from interp.llm.scheduler import append_run, enter_all, run_all
from sae.core.errors import UserError


@dataclass(frozen=True)
class Row:
    number: int


def go(items, worker, concurrency=4, grace=0.2):
    done = []
    asyncio.run(run_all(items, worker, done.append, concurrency, grace))
    return done


def test_results_come_in_order_whatever_ends_first():
    async def worker(n):
        await asyncio.sleep(0.001 * (7 * n % 5))
        return n

    assert go(range(30), worker) == list(range(30))


def test_items_start_in_order_and_at_most_concurrency_run_at_once():
    started, running, most = [], 0, 0

    async def worker(n):
        nonlocal running, most
        started.append(n)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return n

    go(range(20), worker, concurrency=3)
    assert started == list(range(20))
    assert most == 3


def test_a_result_is_delivered_as_soon_as_all_before_it_are_there():
    delivered_while_waiting = []
    done = []

    async def worker(n):
        if n == 5:
            await asyncio.sleep(0.05)
            delivered_while_waiting.extend(done)
        return n

    asyncio.run(run_all(range(10), worker, done.append, 2))
    assert delivered_while_waiting == [0, 1, 2, 3, 4]


def test_a_fatal_error_starts_nothing_new_and_keeps_what_ends_within_the_grace():
    started, done = [], []

    async def worker(n):
        started.append(n)
        if n == 2:
            raise UserError("no key")
        await asyncio.sleep(0.02)
        return n

    with pytest.raises(UserError, match="no key"):
        asyncio.run(run_all(range(100), worker, done.append, 4, grace=0.5))
    assert max(started) <= 3
    assert done == [0, 1]


def test_what_does_not_end_within_the_grace_is_cancelled():
    cancelled = []

    async def worker(n):
        if n == 1:
            raise UserError("stop")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise

    with pytest.raises(UserError):
        go(range(4), worker, grace=0.01)
    assert sorted(cancelled) == [0, 2, 3]


def test_cancelling_the_run_keeps_what_is_in_flight():
    done = []

    async def worker(n):
        await asyncio.sleep(0.03)
        return n

    async def main():
        task = asyncio.create_task(run_all(range(50), worker, done.append, 4, grace=1.0))
        await asyncio.sleep(0.045)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert done == list(range(8))


def test_an_error_of_the_writer_ends_the_run():
    async def worker(n):
        return n

    def write(n):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        asyncio.run(run_all(range(5), worker, write))


def test_append_run_writes_whole_lines_in_order_after_a_torn_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"number": 0}\n{"numb')
    seen = []

    async def worker(n):
        await asyncio.sleep(0.001 * (n % 3))
        return Row(n)

    append_run(path, [1, 2, 3, 4], worker, on_record=seen.append)
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2, 3, 4]
    assert seen == [Row(1), Row(2), Row(3), Row(4)]


def test_only_async_context_managers_are_entered():
    log = []

    class Opening:
        async def __aenter__(self):
            log.append("in")

        async def __aexit__(self, *_):
            log.append("out")

    async def main():
        async with enter_all([object(), Opening()]):
            log.append("work")

    asyncio.run(main())
    assert log == ["in", "work", "out"]
