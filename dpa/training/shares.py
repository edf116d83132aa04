"""Rows made once for all processes of a training: each makes a share of them, and has all.

Of large inputs a process has its share made by workers, one on each CPU core that it may use. They
are forked before CUDA starts (processes take their GPUs when they join), make rows and nothing
else, and end with the process that began them, whatever ends that.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from dpa.errors import InputError
from dpa.runtime.log import Progress
from dpa.text.control_tokens import ControlTokens
from dpa.training.processes import gather, process_state

T = TypeVar("T")
Made = TypeVar("Made")

#: Items of a block: half a second's work, so that all workers end at about the same time.
ITEMS_PER_BLOCK = 50
#: So many are made without workers: a minute's work at most, shared by all processes.
FEW_ITEMS = 5000
#: Workers of a process, on a machine that does not say which cores are whose.
MOST_WORKERS = 8


def in_shares(
    items: Iterable[T], make: Callable[[list[T]], Made], controls: ControlTokens
) -> list[Made]:
    """What `make` makes of each block of items, in order: the same in every process.

    Every process reads all items, and makes the blocks that are its turn. What `controls` has
    escaped is put together as well; nothing else that `make` changes outside is kept. Raises
    InputError in all processes when one does.
    """
    mine: dict[int, Made] = {}
    failure: InputError | None = None
    try:
        mine = own_share(items, make, controls)
    except InputError as error:
        failure = error
    if process_state().num_processes == 1:
        if failure is not None:
            raise failure
        return list(mine.values())
    made: dict[int, Made] = {}
    told = None if failure is None else str(failure)
    for theirs, escaped, failed in gather((mine, controls.texts, told)):
        if failed is not None:
            raise InputError(failed)
        made |= theirs
        controls.texts |= escaped
    return [made[number] for number in sorted(made)]


def own_share(
    items: Iterable[T], make: Callable[[list[T]], Made], controls: ControlTokens
) -> dict[int, Made]:
    """What `make` makes of the blocks that are this process's turn, by the number of the block."""
    source = iter(items)
    first = list(islice(source, FEW_ITEMS + 1))
    workers = usable_cores() if len(first) > FEW_ITEMS else 1
    blocks = blocks_of(chain(first, source))
    if workers == 1:
        return {number: make(block) for number, block in own_turns(blocks)}
    pool = ProcessPoolExecutor(workers, get_context("fork"), begin_worker, (make, controls))
    try:
        return _from_workers(pool, workers, blocks, controls)
    except BrokenProcessPool:
        raise InputError(
            "a process that makes tokens was killed, most likely for want of memory; give the job "
            "more (mem_mb)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _from_workers(
    pool: ProcessPoolExecutor, workers: int, blocks: Iterator[list], controls: ControlTokens
) -> dict[int, Any]:
    pool.submit(int).result()  # forks all of them, which own_turns would be too late for
    progress = Progress(None, "rows made")
    waiting: deque[tuple[int, int, Future[Any]]] = deque()
    made: dict[int, Any] = {}

    def take() -> None:
        number, size, future = waiting.popleft()
        made[number], escaped = future.result()
        controls.texts |= escaped
        progress.advance(size)

    for number, block in own_turns(blocks):
        waiting.append((number, len(block), pool.submit(make_block, block)))
        if len(waiting) > 4 * workers:  # whatever is read is small
            take()
    while waiting:
        take()
    return made


def usable_cores() -> int:
    """CPU cores for each of the training's processes on this machine, at most MOST_WORKERS."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(len(os.sched_getaffinity(0)) // processes, 1), MOST_WORKERS)


def blocks_of(items: Iterator[T]) -> Iterator[list[T]]:
    """The items in lists of ITEMS_PER_BLOCK."""
    while block := list(islice(items, ITEMS_PER_BLOCK)):
        yield block


def own_turns(blocks: Iterable[list[T]]) -> Iterator[tuple[int, list[T]]]:
    """The blocks that are this process's turn, with their numbers among all."""
    state = process_state()
    for number, block in enumerate(blocks):
        if number % state.num_processes == state.process_index:
            yield number, block


# --- In a worker ----------------------------------------------------------------------------------

#: What a worker makes blocks with.
_task: tuple[Callable[[list], Any], ControlTokens]


def begin_worker(make: Callable[[list], Any], controls: ControlTokens) -> None:
    """Prepare a forked process: it has its parent's objects, and none of its threads."""
    global _task
    _task = make, controls
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its workers
    Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """End this process when its parent ends, of which a pool's queue would not tell."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def make_block(block: list) -> tuple[Any, set[bytes]]:
    """What is made of a block, and the digests of texts in it that were escaped."""
    make, controls = _task
    controls.texts = set()
    return make(block), controls.texts
