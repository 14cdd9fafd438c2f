"""Items -> the same items, each made by a thread while the one before is used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order; each is begun when the one before it is handed out.

    So at most two are alive: the one in use and the one in the making. What fails in the thread is
    raised here, in that item's place. Closing waits for the item in the making; no thread is left.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # not `end`, hence a T
