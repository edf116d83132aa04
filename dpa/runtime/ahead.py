"""What a CPU prepares while a GPU is at work on what came before."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], most: int = 2) -> Iterator[Item]:
    """The items in order, each made in a thread while earlier ones are used; at most `most` wait.

    An error comes in the place of the item that failed.
    """
    source, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        waiting: deque[Future[Any]] = deque()
        try:
            for _ in range(most):
                waiting.append(thread.submit(next, source, end))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, source, end))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
