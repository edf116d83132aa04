"""Rows are made once: each process makes a share, and all have the same."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from dpa.artefacts.row_counts import RowCounts
from dpa.errors import InputError
from dpa.training import shares


class Processes:
    """Threads that stand for processes: each has its number, and they meet to exchange values."""

    def __init__(self, count: int):
        self.count, self.own = count, threading.local()
        self.barrier = threading.Barrier(count, timeout=20)
        self.values: dict[int, object] = {}

    def state(self):
        return SimpleNamespace(num_processes=self.count, process_index=self.own.number)

    def gather(self, value):
        self.values[self.own.number] = value
        self.barrier.wait()
        return [self.values[number] for number in range(self.count)]

    def run(self, work):
        """What `work` gives in each process, or its error."""

        def as_process(number):
            self.own.number = number
            try:
                return work(number)
            except InputError as error:
                return error

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(as_process, range(self.count)))


@pytest.fixture(params=[1, 2, 3])
def processes(request, monkeypatch):
    found = Processes(request.param)
    monkeypatch.setattr(shares, "ITEMS_PER_BLOCK", 3)
    monkeypatch.setattr(shares, "process_state", found.state)
    monkeypatch.setattr(shares, "gather", found.gather)
    return found


def test_every_item_is_made_by_one_process_and_known_to_all(processes):
    made: list[list[int]] = [[] for _ in range(processes.count)]
    controls = [SimpleNamespace(texts=set()) for _ in range(processes.count)]

    def work(number):
        def make(block):
            made[number] += block
            controls[number].texts |= {bytes([i]) for i in block if i % 5 == 0}
            counts = RowCounts()
            counts.read = len(block)
            counts.drop("odd", rows=sum(i % 2 for i in block))
            return [10 * i for i in block if i % 2 == 0], counts

        rows, total = [], RowCounts()
        for some, counts in shares.in_shares(iter(range(20)), make, controls[number]):
            rows += some
            total.add(counts)
        return rows, total.as_dict()

    expected = ([10 * i for i in range(0, 20, 2)], {"read": 20, "kept": 10, "dropped": {"odd": 10}})
    assert processes.run(work) == [expected] * processes.count
    assert sorted(i for some in made for i in some) == list(range(20))
    assert all(made)
    assert all(c.texts == {b"\x00", b"\x05", b"\x0a", b"\x0f"} for c in controls)


def test_a_mistake_in_one_share_ends_all_processes_with_its_line(processes):
    def make(block):
        if 4 in block:
            raise InputError("row 4: no response; leave it out")
        return block

    def work(number):
        return shares.in_shares(range(9), make, SimpleNamespace(texts=set()))

    found = processes.run(work)
    assert [str(error) for error in found] == ["row 4: no response; leave it out"] * len(found)
