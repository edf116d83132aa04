"""Rows made once for all processes of a training: each makes a share of them, and has all."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from dpa.errors import InputError
from dpa.text.control_tokens import ControlTokens
from dpa.training.processes import gather, process_state

T = TypeVar("T")
Made = TypeVar("Made")

#: Items of a block.
ITEMS_PER_BLOCK = 1000


def in_shares(
    items: Iterable[T], make: Callable[[list[T]], Made], controls: ControlTokens
) -> list[Made]:
    """What `make` makes of each block of items, in order: the same in every process.

    Every process reads all items, and makes the blocks that are its turn. What `controls` has
    escaped is put together as well. Raises InputError in all processes when one does.
    """
    state = process_state()
    if state.num_processes == 1:
        return [make(block) for block in blocks(items)]
    mine: dict[int, Made] = {}
    failure = None
    try:
        for number, block in enumerate(blocks(items)):
            if number % state.num_processes == state.process_index:
                mine[number] = make(block)
    except InputError as error:
        failure = str(error)
    made: dict[int, Made] = {}
    for theirs, escaped, failed in gather((mine, controls.texts, failure)):
        if failed is not None:
            raise InputError(failed)
        made |= theirs
        controls.texts |= escaped
    return [made[number] for number in sorted(made)]


def blocks(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of ITEMS_PER_BLOCK."""
    source = iter(items)
    while block := list(islice(source, ITEMS_PER_BLOCK)):
        yield block
