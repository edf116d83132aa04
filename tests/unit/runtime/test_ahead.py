"""Work that is prepared in a thread: in order, a little ahead, and errors where they belong."""

import threading
from itertools import islice

import pytest

from dpa.runtime.ahead import ahead


def test_items_come_in_order_and_are_made_while_others_are_used():
    made = [threading.Event() for _ in range(5)]

    def items():
        for number in range(5):
            made[number].set()
            yield number

    for number in ahead(items(), most=2):
        # The next is made without being asked for.
        assert number == 4 or made[number + 1].wait(10)


def test_no_more_are_made_than_may_wait():
    made = 0

    def make() -> int:
        nonlocal made
        made += 1
        return made

    used = ahead(iter(make, None), most=3)
    for number in islice(used, 10):
        assert made <= number + 3
    used.close()
    assert made <= 13


def test_an_error_comes_in_its_items_place():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    used = ahead(items(), most=3)
    assert [next(used), next(used)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(used)
