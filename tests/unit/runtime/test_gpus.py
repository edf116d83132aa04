"""Jobs on one machine with several GPUs each take others; what says which GPUs there are is a
stand-in, the locks are real."""

import os
import subprocess
import sys

import pytest

from dpa.errors import InputError
from dpa.runtime.gpus import require_gpu, visible_gpus
from dpa.runtime.run_environment import CLONE, RunEnvironment

CODE = """
import os, sys
from pathlib import Path
from dpa.errors import InputError
from dpa.runtime.gpus import claim_gpus
count, folder = int(sys.argv[1]), Path(sys.argv[2])
try:
    claim_gpus(count, folder / "dev", folder / "driver")
    claim_gpus(count, folder / "dev", folder / "driver")  # the sampler's, then the scorer's
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
except InputError as error:
    print(error, flush=True)
sys.stdin.read()
"""


def cards(*letters):
    """What `nvidia-smi -L` prints of cards, each named by a letter."""
    return "\n".join(
        f"GPU {n}: NVIDIA A100-SXM4-80GB (UUID: {uuid(letter)})" for n, letter in enumerate(letters)
    )


def uuid(letter):
    return f"GPU-{letter * 8}-{letter * 4}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Sets what nvidia-smi prints; each call makes one that later jobs find."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "dev").mkdir()
    path = os.environ["PATH"]

    def make(printed, number=iter(range(99))):
        folder = tmp_path / f"bin{next(number)}"
        folder.mkdir()
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'EOF'\n{printed}\nEOF\n")
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{path}")

    return make


@pytest.fixture
def job(tmp_path, machine):
    """Starts a job that needs some GPUs; returns its process and what it takes."""
    started = []

    def start(count=1, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(count), str(tmp_path)],
            cwd=CLONE, env={**os.environ, **environment}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_each_job_takes_another_and_gives_it_back_when_it_dies(job, machine):
    machine(cards(*"abcdef"))
    visible = {"CUDA_VISIBLE_DEVICES": "2,5"}
    first, gpu = job(**visible)
    assert gpu == "2"
    assert job(**visible)[1] == "5"
    refused = job(**visible)[1]
    assert "needs 1 GPUs, and other jobs have 2 of the 2 here" in refused
    assert "--resources gpu=2" in refused
    first.kill()
    first.wait()
    assert job(**visible)[1] == "2"
    # By their UUIDs they are the same cards.
    assert job(CUDA_VISIBLE_DEVICES=f"{uuid('c')},{uuid('b')[:8]}")[1] == uuid("b")[:8]


def test_two_trainings_on_eight_gpus_take_different_four(job, machine):
    machine(cards(*"abcdefgh"))
    first, second = (job(4)[1].split(",") for _ in range(2))
    assert first == [uuid(letter) for letter in "abcd"]
    assert second == [uuid(letter) for letter in "efgh"]
    assert "needs 1 GPUs, and other jobs have 8 of the 8" in job(1)[1]


def test_who_does_not_get_all_takes_none(job, machine):
    machine(cards(*"abc"))
    assert job(2)[1].count("GPU-") == 2
    assert "needs 2 GPUs, and other jobs have 2 of the 3" in job(2)[1]
    assert job(1)[1] == uuid("c")
    assert "needs 4 GPUs and sees 3: lower compute.training_processes" in job(4)[1]


def test_jobs_that_both_see_gpu_0_for_different_cards_both_run(job, machine, tmp_path):
    """Two allocations on a node: each counts its cards from 0, and both have the same /tmp."""
    machine(cards("a"))
    only = {"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": "7"}
    assert job(**only)[1] == "0"
    machine(cards("b"))
    assert job(**only)[1] == "0"
    assert job(SLURM_JOB_ID="7")[1] == "None"  # one card, and one is what it needs
    assert list((tmp_path / "tmp").iterdir()) == []
    # With two cards each, they choose; and the second job has nothing to do with the first's.
    both = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_ID": "7"}
    machine(cards("a", "b"))
    assert [job(**both)[1], job(**both)[1]] == ["0", "1"]
    machine(cards("c", "d"))
    assert [job(**both)[1], job(**both)[1]] == ["0", "1"]


def test_jobs_of_one_allocation_take_different_cards(job, machine):
    machine(cards(*"ab"))
    inside = {"SLURM_JOB_ID": "7"}  # salloc
    assert {job(**inside)[1], job(**inside)[1]} == {uuid("a"), uuid("b")}


def test_a_container_without_nvidia_smi_asks_the_driver(job, tmp_path, machine):
    assert job()[1] == "None"  # no GPU at all
    for bus, (letter, minor) in enumerate(zip("abcd", range(4), strict=True)):
        folder = tmp_path / f"driver/gpus/0000:{bus}1:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t A100\nGPU UUID:\t {uuid(letter)}\nDevice Minor: \t {minor}\n"
        )
    for name in ("nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert [job()[1], job()[1]] == [uuid("c"), uuid("d")]
    ordinals = {"CUDA_VISIBLE_DEVICES": "0,1"}  # CUDA's, whatever the device files are called
    assert "other jobs have 2 of the 2" in job(**ordinals)[1]


def test_cards_that_nothing_tells_apart_are_not_guessed(job, tmp_path, machine):
    machine("GPU 0: [Insufficient Permissions]\nGPU 1: [N/A]")
    for name in ("nvidia0", "nvidia1"):
        (tmp_path / "dev" / name).touch()
    assert "cannot tell them apart" in job()[1]
    assert job(2)[1] == "None"
    assert job(CUDA_VISIBLE_DEVICES="1")[1] == "1"
    assert job(CUDA_VISIBLE_DEVICES=f"{uuid('a')},{uuid('b')}")[1] == uuid("a")


def test_instances_of_a_card_are_gpus_of_their_own(job, machine, tmp_path):
    machine(
        cards("a")
        + "\n  MIG 3g.40gb Device 0: (UUID: MIG-GPU-aaaaaaaa/1/0)"
        + "\n  MIG 3g.40gb Device 1: (UUID: MIG-GPU-aaaaaaaa/2/0)"
    )
    assert [job()[1], job()[1]] == ["MIG-GPU-aaaaaaaa/1/0", "MIG-GPU-aaaaaaaa/2/0"]
    (folder,) = (tmp_path / "tmp").iterdir()
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("-1", []), ("", []), ("NoDevFiles", []), ("0,-1,1", ["0"]), ("0, 1", ["0", "1"]),
        ("1,7,0", ["1"]), (f"{uuid('b')},GPU-x,0", [uuid("b")]),
    ],
)  # fmt: skip
def test_what_cuda_would_show(machine, monkeypatch, given, seen):
    machine(cards(*"ab"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert [gpu.name for gpu in visible_gpus()] == seen


def test_minus_one_is_no_gpu_to_claim(job, machine):
    machine(cards(*"ab"))
    assert job(CUDA_VISIBLE_DEVICES="-1")[1] == "-1"


def test_a_lock_neither_truncates_nor_follows_links(job, machine, tmp_path):
    machine(cards(*"ab"))
    folder = tmp_path / f"tmp/dpa-{os.getuid()}"
    folder.mkdir(mode=0o700)
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (folder / f"{uuid('a')}.lock").symlink_to(precious)
    assert "no lock for a GPU" in job()[1]
    (folder / f"{uuid('a')}.lock").unlink()
    (folder / f"{uuid('a')}.lock").write_text("kept")
    assert job()[1] == uuid("a")
    assert precious.read_text() == (folder / f"{uuid('a')}.lock").read_text() == "kept"


@pytest.mark.parametrize("kind", ["shared", "link", "file"])
def test_the_folder_of_locks_is_private(job, machine, tmp_path, kind):
    machine(cards(*"ab"))
    folder = tmp_path / f"tmp/dpa-{os.getuid()}"
    (tmp_path / "other").mkdir(mode=0o700)
    match kind:
        case "shared":
            folder.mkdir()
            folder.chmod(0o777)
        case "link":
            folder.symlink_to(tmp_path / "other")
        case "file":
            folder.touch()
    assert "set TMPDIR to a folder of your own" in job()[1]
    assert list((tmp_path / "other").iterdir()) == []


def test_what_is_launched_holds_the_gpus_until_it_ends(job, machine):
    """The claim survives the exec that turns it into the launcher."""
    machine(cards(*"abcd"))
    program = (
        "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-m", "scripts.hold_gpus", "--count", "2", sys.executable, "-c", program],
        cwd=CLONE, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert launcher.stdout.readline().strip() == f"{uuid('a')},{uuid('b')}"
    assert job(2)[1] == f"{uuid('c')},{uuid('d')}"
    launcher.communicate("\n")
    assert launcher.returncode == 0
    assert job(2)[1] == f"{uuid('a')},{uuid('b')}"
    refused = subprocess.run(
        [sys.executable, "-m", "scripts.hold_gpus", "--count", "2", "true"],
        cwd=CLONE, text=True, capture_output=True,
    )  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "other jobs have 4 of the 4" in refused.stderr


def test_a_job_that_should_have_a_gpu_says_why_it_has_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    require_gpu()  # by hand, or compute.gpu is false
    RunEnvironment(gpu=True).announce()
    with pytest.raises(InputError, match=r"compute\.gpu.*torch says: .*NVIDIA"):
        require_gpu()
