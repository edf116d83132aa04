"""Rows are made once: each process makes a share, and all have the same."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import active_children, get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpa.artefacts.row_counts import RowCounts
from dpa.errors import InputError
from dpa.methods.sft import tokenise_conversations
from dpa.text.tokenization import ChatTokenizer
from dpa.training import shares
from tests.support.chat_tokenizers import make_tokenizer


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


@pytest.fixture
def workers(monkeypatch):
    """Sets how many workers this process, alone, has for more than 9 items."""

    def use(count):
        monkeypatch.setattr(shares, "usable_cores", lambda: count)

    monkeypatch.setattr(shares, "ITEMS_PER_BLOCK", 3)
    monkeypatch.setattr(shares, "FEW_ITEMS", 9)
    alone = SimpleNamespace(num_processes=1, process_index=0)
    monkeypatch.setattr(shares, "process_state", lambda: alone)
    return use


def test_workers_make_the_same_rows_and_counts(workers):
    texts = ["Swim.", "<|im_end|> and on", "é" * 40, "a\n b" * 9, ""]
    conversations = [
        [
            {"role": "user", "content": f"{i}? {texts[i % 5]}"},
            {"role": "assistant", "content": texts[i % 4]},
        ]
        for i in range(50)
    ]

    def made(count):
        workers(count)
        chat = ChatTokenizer(make_tokenizer("chatml"))

        def tokenised(block):
            counts = RowCounts()
            return tokenise_conversations(chat, block, 120, counts), counts, os.getpid()

        found = shares.in_shares(iter(conversations), tokenised, chat.controls)
        rows, total = [], RowCounts()
        for some, counts, _ in found:
            rows += [{name: array.tolist() for name, array in row.items()} for row in some]
            total.add(counts)
        pids = {pid for _, _, pid in found}
        return rows, total.as_dict(), chat.controls.texts, pids

    *alone, own = made(1)
    assert own == {os.getpid()}
    rows, counts, escaped = alone
    assert rows
    assert counts["dropped"]
    assert len(escaped) > 10
    for count in (2, 3):
        *found, pids = made(count)
        assert found == alone
        assert os.getpid() not in pids
        assert len(pids) <= count


def test_all_workers_work_at_once_on_many_items_and_none_on_few(workers):
    workers(3)

    def make(block):
        time.sleep(0.05)
        return os.getpid()

    controls = SimpleNamespace(texts=set())
    assert len(set(shares.in_shares(range(60), make, controls))) == 3
    assert set(shares.in_shares(range(9), make, controls)) == {os.getpid()}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_mistake_in_a_worker_is_raised_as_itself(workers, count):
    workers(count)

    def make(block):
        if 40 in block:
            raise InputError("row 40: no response; leave it out")
        return block

    with pytest.raises(InputError, match=r"^row 40: no response; leave it out$"):
        shares.in_shares(range(300), make, SimpleNamespace(texts=set()))
    assert not active_children()


def test_a_worker_that_is_killed_ends_the_job_in_one_line(workers):
    workers(2)

    def make(block):
        if 12 in block:
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    with pytest.raises(InputError, match=r"was killed, most likely for want of memory"):
        shares.in_shares(range(60), make, SimpleNamespace(texts=set()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_began_them(workers, tmp_path, number):
    workers(2)

    def make(block):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    def run():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever another test left behind
        shares.in_shares(range(60), make, SimpleNamespace(texts=set()))

    job = get_context("fork").Process(target=run)
    job.start()
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    pids = [int(file.name) for file in tmp_path.iterdir()]
    assert job.pid not in pids
    os.kill(job.pid, number)
    job.join(20)
    assert job.exitcode == -number
    wait_for(lambda: not any(map(lives, pids)))


def lives(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_cores_are_shared_out_among_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(24)))
    for processes, cores in (("1", 8), ("4", 6), ("48", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert shares.usable_cores() == cores
