"""Full disks, read-only folders, damaged files, broken engines, and two runs at once.

After each: an error that names file and remedy, and the same command completes with the bytes of
the undisturbed run once the cause is gone.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.finished_run import RUN, FinishedRun, contents, remove
from tests.support.snakemake_runs import command as snakemake_command
from tests.support.snakemake_runs import environment, snakemake

FAULT = "tests.support.faults:"
SELECTED = RUN / "dpa/iter2/selected.jsonl"
CONFIG = ("--config", "experiment=tiny")


def refused(done, *fragments: str) -> None:
    """One message with place and remedy."""
    assert done.code == 2, done.output
    messages = re.findall(r"^\[\w+\] error: (.*)", done.output, re.MULTILINE)
    assert len(messages) == 1, done.output
    assert "Traceback" not in done.output
    for fragment in fragments:
        assert fragment in messages[0]


STAGES = [
    ("sample_responses", "dpa/iter2-0", 900),
    ("score_responses", "dpa/iter2-0", 900),
    ("select_responses", "dpa/iter2", 900),
    ("finetune_policy", "dpa/iter2", 100_000),
    ("sample_soup", "", 2000),
    ("plot_pareto_front", "", 9000),
]


@pytest.mark.parametrize(("script", "part", "size"), STAGES)
def test_no_room_for_a_file(finished_run, tmp_path, count, script, part, size):
    """The system cuts files off at some size: in the middle of a line, or of a tensor."""
    command = finished_run.command(script, part)
    folder = finished_run.copy(tmp_path, without=[command])
    done = finished_run.run(command, folder, file_size=size)
    refused(done, str(RUN), "cannot be written: ", "File too large", "make room", "then rerun")
    done = finished_run.run(command, folder)
    assert done.code == 0, done.output
    count(faults=1, bytes=finished_run.same(command, folder), lost=0)


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts an empty file system on a folder, where the system lets us."""
    mounts: list[Path] = []

    def mount(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        run = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(run, capture_output=True).returncode:
            pytest.skip("mounting a file system is not permitted here")
        mounts.append(folder)

    def unmount() -> None:
        while mounts:
            subprocess.run(["umount", str(mounts.pop())], check=True)

    yield mount, unmount
    unmount()


@pytest.mark.parametrize("fault", ["disk full", "read-only"])
@pytest.mark.parametrize("script", ["sample_responses", "finetune_policy"])
def test_file_systems(finished_run, tmp_path, count, mounted, fault, script):
    mount, unmount = mounted
    part = "dpa/iter2-0" if script == "sample_responses" else "dpa/iter2"
    command = finished_run.command(script, part)
    output = command.value("--output")
    folder = finished_run.copy(tmp_path, without=[])
    elsewhere = command.changed(output=f"{RUN}/elsewhere/{Path(output).name}")
    mount(folder / RUN / "elsewhere", "size=4k" if fault == "disk full" else "ro")
    done = finished_run.run(elsewhere, folder)
    unmount()
    why = "No space left on device" if fault == "disk full" else "Read-only file system"
    refused(done, elsewhere.value("--output"), why, "then rerun")
    done = finished_run.run(elsewhere, folder)
    assert done.code == 0, done.output
    found = contents(folder / elsewhere.value("--output"))
    assert found == contents(finished_run.folder / output)
    count(faults=1, bytes=sum(map(len, found.values())), lost=0)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [
    ("last line truncated", truncated, "the line is truncated"),
    ("emptied", emptied, "has 0 records, but its sidecar counts 24"),
    ("deleted", Path.unlink, "no such file"),
]


@pytest.mark.parametrize(("what", "damage", "message"), DAMAGES, ids=[d[0] for d in DAMAGES])
@pytest.mark.parametrize("stage", ["sampled", "scored"])
def test_a_damaged_shard(finished_run, tmp_path, count, stage, what, damage, message):
    """Whoever reads it says so; made again, it gives the same selected data."""
    maker, reader = {
        "sampled": ("sample_responses", finished_run.command("score_responses", "dpa/iter2-0")),
        "scored": ("score_responses", finished_run.command("select_responses", "dpa/iter2")),
    }[stage]
    maker = finished_run.command(maker, "dpa/iter2-0")
    folder = finished_run.copy(tmp_path, without=[reader])
    damage(folder / maker.value("--output"))
    refused(finished_run.run(reader, folder), maker.value("--output"), message)
    remove(maker, folder)
    for command in (maker, reader):
        done = finished_run.run(command, folder)
        assert done.code == 0, done.output
    count(faults=1, bytes=finished_run.same(reader, folder), lost=0)


@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
def test_a_shard_in_hand_is_cut_off(finished_run, tmp_path, count, keep):
    """A partial file that ends in half a line, as a crash of the machine leaves it."""
    command = finished_run.command("score_responses", "dpa/iter2-1")
    folder = finished_run.copy(tmp_path, without=[command])
    job = finished_run.processes.start(command.script, command.arguments, folder)
    partial = folder / (command.value("--output") + ".partial")
    owner = partial.with_name(partial.name + ".for")
    while not owner.exists():
        time.sleep(0.001)
    job.kill()
    assert job.wait().code == -signal.SIGKILL
    whole = (finished_run.folder / command.value("--output")).read_bytes()
    partial.write_bytes(whole[: int(len(whole) * keep)])
    done = finished_run.run(command, folder)
    assert done.code == 0, done.output
    count(kills=1, bytes=finished_run.same(command, folder), lost=0)


@pytest.mark.parametrize("script", ["sample_responses", "score_responses", "finetune_policy"])
def test_a_corrupted_checkpoint(finished_run, tmp_path, count, script):
    part = "dpa/iter2" if script == "finetune_policy" else "dpa/iter2-0"
    command = finished_run.command(script, part)
    option = {"sample_responses": "--policy", "score_responses": "--reward-model"}
    model = command.value(option.get(script, "--policy"))
    folder = finished_run.copy(tmp_path, without=[command])
    weights = folder / model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(finished_run.run(command, folder), f"{model}: cannot load the weights", "make it again")
    weights.write_bytes((finished_run.folder / model / "model.safetensors").read_bytes())
    done = finished_run.run(command, folder)
    assert done.code == 0, done.output
    count(faults=1, bytes=finished_run.same(command, folder), lost=0)


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("engine_raises", 1, "illegal memory access"),
        ("engine_returns_nothing", 2, "no tokens"),
        ("no_memory", 2, "lower sampling.rows_per_batch"),
    ],
)
def test_a_broken_engine(finished_run, tmp_path, count, fault, code, message):
    command = finished_run.command("sample_responses", "dpa/iter2-0")
    folder = finished_run.copy(tmp_path, without=[command])
    done = finished_run.run(command, folder, fault=FAULT + fault)
    assert done.code == code, done.output
    assert message in done.output
    assert not (folder / command.value("--output")).exists()
    done = finished_run.run(command, folder)
    assert done.code == 0, done.output
    if fault == "engine_raises":
        assert "resuming after 6 of 24 responses" in done.output
    count(faults=1, bytes=finished_run.same(command, folder), lost=0)


@pytest.mark.parametrize("script", ["score_responses", "finetune_policy"])
def test_out_of_memory_on_the_first_batch(finished_run, tmp_path, count, script):
    part = "dpa/iter2" if script == "finetune_policy" else "dpa/iter2-0"
    command = finished_run.command(script, part)
    folder = finished_run.copy(tmp_path, without=[command])
    refused(finished_run.run(command, folder, fault=f"{FAULT}no_memory"), "out of memory", "lower")
    done = finished_run.run(command, folder)
    assert done.code == 0, done.output
    count(faults=1, bytes=finished_run.same(command, folder), lost=0)


def test_two_scripts_write_one_shard(finished_run, tmp_path, count):
    """The second is refused, and the first one's file is not touched."""
    command = finished_run.command("sample_responses", "dpa/iter2-0")
    folder = finished_run.copy(tmp_path, without=[command])
    first = finished_run.processes.start(
        command.script, command.arguments, folder, fault=f"{FAULT}waits"
    )
    partial = folder / (command.value("--output") + ".partial")
    while not (partial.exists() and partial.stat().st_size):
        time.sleep(0.005)
    second = finished_run.run(command, folder)
    refused(second, command.value("--output"), "another process is writing it", "then rerun")
    done = first.wait()
    assert done.code == 0, done.output
    count(faults=1, bytes=finished_run.same(command, folder), lost=0)


def undisturbed_again(finished_run: FinishedRun, folder: Path) -> int:
    expected = (finished_run.folder / SELECTED).read_bytes()
    assert (folder / SELECTED).read_bytes() == expected
    return len(expected)


def test_two_runs_in_one_folder_and_a_clock_that_jumps(finished_run, tmp_path, count):
    """Snakemake's lock keeps the second run out; file times a year off change no byte."""
    folder = shutil.copytree(finished_run.folder, tmp_path / "clone")
    before = (folder / SELECTED).read_bytes()
    # The miniature run was not made by Snakemake: it is told that all is up to date.
    snakemake(folder, "--touch", "--cores", "1", *CONFIG, "--", str(SELECTED))
    remove(finished_run.command("select_responses", "dpa/iter2"), folder)
    target = ("--cores", "1", *CONFIG, "--", str(SELECTED))
    first = subprocess.Popen(
        snakemake_command(*target), cwd=folder, env=environment(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    log = folder / finished_run.command("select_responses", "dpa/iter2").log
    log.unlink(missing_ok=True)
    while not log.exists():  # it has its locks, and its first job
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGSTOP)  # or it might be done before the second has begun
    second = snakemake(folder, *target, check=False)
    os.killpg(first.pid, signal.SIGCONT)
    output, _ = first.communicate()
    assert first.returncode == 0, output[-3000:]
    assert second.returncode != 0
    assert "--unlock" in second.stdout
    assert (folder / SELECTED).read_bytes() == before

    year = 365 * 24 * 3600
    for scored in (folder / RUN / "dpa/iter2/scored").iterdir():
        os.utime(scored, (time.time() + year,) * 2)
    os.utime(folder / SELECTED, (time.time() - year,) * 2)
    snakemake(folder, *target)
    assert (folder / SELECTED).read_bytes() == before
    count(faults=2, bytes=2 * undisturbed_again(finished_run, folder), lost=0)
