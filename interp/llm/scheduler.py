"""Many questions: a bounded number in flight, results written in the order of the items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from interp.llm.concurrency import PLACE, STOPPED
from interp.llm.types import CONCURRENCY, Width
from interp.records.codec import to_json
from sae.core import interrupts
from sae.core.files import append_jsonl, repair_jsonl

DRAWING_THREADS = 2
"""Threads that decode images and draw grids beside the event loop."""
GRACE = 1.0
"""Seconds that requests in flight get to end when a run is stopped: their answers are kept."""

_LOOK = 0.2
"""Seconds between two looks at how many items may be in work."""


Item = TypeVar("Item")
Result = TypeVar("Result")


async def run_all(
    items: Sequence[Item],
    worker: Callable[[Item], Awaitable[Result]],
    on_done: Callable[[Result], None],
    concurrency: Width = CONCURRENCY,
    grace: float = GRACE,
) -> None:
    """Work on `items` with at most `concurrency` at once; start and deliver them in order.

    Items are in work, requests are in flight: a `Gate` lets the oldest item's requests go first,
    and its `room` says how many items keep it busy.

    `on_done` gets the results in the order of the items, each as soon as all before it are there,
    so a file written by it is at any time a prefix of the final one. A worker that raises ends
    the run, and so does cancelling it (SIGINT, SIGTERM): nothing new starts, requests get `grace`
    seconds, what is then ready in order is delivered, and the error is raised.
    """
    width = _fixed(concurrency) if isinstance(concurrency, int) else concurrency
    stopped = asyncio.Event()
    STOPPED.set(stopped)  # of the workers too: a task starts with its maker's context
    ready: dict[int, Result] = {}
    running: dict[asyncio.Task[Result], int] = {}
    started, delivered = 0, 0
    try:
        while delivered < len(items):
            while started < len(items) and len(running) < width():
                running[_start(worker, items[started], started)] = started
                started += 1
            # A width may grow while nothing ends.
            await asyncio.wait(running, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
            _collect(running, ready)
            delivered = _deliver(ready, delivered, on_done)
    except BaseException:
        stopped.set()
        if running:
            await _wind_down(running, ready, grace)
        _deliver(ready, delivered, on_done)
        raise


def append_run(
    path: Path,
    items: Sequence[Item],
    worker: Callable[[Item], Awaitable[Any]],
    *,
    concurrency: Width = CONCURRENCY,
    on_record: Callable[[Any], None] | None = None,
    opened: Iterable[object] = (),
) -> None:
    """Run `worker` over `items` and append its records to a JSON Lines file, in order.

    `on_record` sees each record that was written.

    `opened`: things the worker uses; those that are async context managers are entered first, in
    this order.
    """
    repair_jsonl(path)

    def write(record: Any) -> None:
        append_jsonl(path, [to_json(record)])
        if on_record is not None:
            on_record(record)

    async def main() -> None:
        # Drawing grids in more threads gains nothing, and makes answers wait for the interpreter.
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        loop.set_default_executor(ThreadPoolExecutor(DRAWING_THREADS))
        with interrupts.end_on_sigterm(lambda: loop.call_soon_threadsafe(task.cancel)):
            async with enter_all(opened):
                await run_all(items, worker, write, concurrency)

    if not items:
        return
    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        if interrupts.was_terminated():
            raise KeyboardInterrupt from None
        raise


@asynccontextmanager
async def enter_all(things: Iterable[object]) -> AsyncIterator[None]:
    """Enter those things that are async context managers (a client with open connections)."""
    async with AsyncExitStack() as stack:
        for thing in things:
            if isinstance(thing, AbstractAsyncContextManager):
                await stack.enter_async_context(thing)
        yield


def _fixed(n: int) -> Callable[[], int]:
    return lambda: n


def _start(
    worker: Callable[[Item], Awaitable[Result]], item: Item, place: int
) -> asyncio.Task[Result]:
    async def work() -> Result:
        PLACE.set(place)
        return await worker(item)

    return asyncio.ensure_future(work())


def _collect(running: dict[asyncio.Task[Result], int], ready: dict[int, Result]) -> None:
    """Move what is done to `ready`; raise the first error after having moved the rest."""
    done = [task for task in running if task.done()]
    failed: BaseException | None = None
    for task in done:
        slot = running.pop(task)
        if task.cancelled():
            failed = failed or asyncio.CancelledError()
        elif (error := task.exception()) is not None:
            failed = failed or error
        else:
            ready[slot] = task.result()
    if failed is not None:
        raise failed


def _deliver(ready: dict[int, Result], delivered: int, on_done: Callable[[Result], None]) -> int:
    while delivered in ready:
        result = ready.pop(delivered)
        delivered += 1
        on_done(result)
    return delivered


async def _wind_down(
    running: dict[asyncio.Task[Result], int], ready: dict[int, Result], grace: float
) -> None:
    done, late = await asyncio.wait(running, timeout=grace)
    for task in done:
        if not task.cancelled() and task.exception() is None:
            ready[running[task]] = task.result()
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


async def gather(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order. The first error ends the rest, and is raised.

    The rest first gets half of the time that a stopped run grants: its answers may be paid already.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if others:
            await asyncio.wait(others, timeout=GRACE / 2)
        for task in done:
            task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
