"""Several processes train the model that one would, and resume where they were interrupted.

Real launches by accelerate, on CPU processes over gloo; each takes long to start, so that one runs
many trainings (tests/support/training_jobs.py).
"""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dpa.artefacts.sidecars import read_sidecar
from tests.support.snakemake_runs import TWO_PROCESSES, environment
from tests.support.training_jobs import run

pytestmark = pytest.mark.slow

FSDP = {"sharding": "fsdp"}
LORA = {"lora": {"rank": 4, "alpha": 8}}
#: Name: kind, architecture, trainer, schedule. 19 rows in batches of 8, 2 at a time: an epoch ends
#: with a batch of 3, which two processes cannot share equally.
JOBS = {
    "sft": ("finetune", "mistral", {}, {}),
    "sft-packed": ("finetune", "gemma2", {"packing": True}, {"batch_size": 2, "max_length": 48}),
    "sft-varlen": (
        "finetune",
        "mistral",
        {"packing": True, "attention": "varlen"},
        {"batch_size": 2, "max_length": 48},
    ),
    "sft-fsdp": ("finetune", "gemma2", FSDP | {"gradient_checkpointing": True}, {}),
    # As on GPUs.
    "sft-fused": ("finetune_fused", "mistral", {}, {}),
    "sft-fused-fsdp": ("finetune_fused", "gemma2", FSDP | {"gradient_checkpointing": True}, {}),
    "sft-lora": ("finetune", "mistral", LORA, {}),
    "sft-lora-fsdp": ("finetune", "mistral", FSDP | LORA, {}),
    "dpo": ("dpo", "gemma2", {}, {"learning_rate": 1e-3}),
    "dpo-fsdp": ("dpo", "mistral", FSDP, {"learning_rate": 1e-3}),
    "dpo-lora": ("dpo", "mistral", LORA, {"learning_rate": 1e-3}),
    "online-dpo": ("online_dpo", "mistral", {}, {"learning_rate": 1e-3}),
    "reward": ("reward_model", "mistral", {}, {}),
    "reward-fsdp": ("reward_model", "llama", FSDP, {}),  # llama's embeddings are tied
    "reward-lora": ("reward_model", "llama", LORA, {}),
    "reward-lora-fsdp": ("reward_model", "gemma2", FSDP | LORA, {}),
}
#: Interrupted and resumed: with a checkpoint after every second step, of six.
SAVED = {"save_steps": 2}
RESUMED = {
    "stopped": ("finetune", "mistral", SAVED, {}, [signal.SIGTERM, 1, 3]),
    "killed": ("reward_model", "mistral", SAVED | FSDP, {}, [signal.SIGKILL, 1, 5]),
}


def job(bases, kind, architecture, trainer, schedule, struck=None):
    options = {"start": bases[architecture], "trainer": trainer, "schedule": schedule}
    return kind, options | ({"signal": struck} if struck else {})


def launch(folder: Path, jobs: list) -> subprocess.CompletedProcess:
    """Run jobs on two processes; the log is in stdout."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    return subprocess.run(
        [*TWO_PROCESSES.split(), "-m", "tests.support.training_jobs", str(path)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**environment(), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"},
    )


@pytest.fixture(scope="module")
def one(bases, tmp_path_factory):
    """Folder of the models that one process trains."""
    folder = tmp_path_factory.mktemp("one")
    for name, (*what,) in JOBS.items():
        kind, options = job(bases, *what)
        run(kind, folder / name, options)
    return folder


@pytest.fixture(scope="module")
def interrupted(bases, tmp_path_factory):
    """Folder of trainings that were interrupted, what they left by name, and their log."""
    folder = tmp_path_factory.mktemp("resumed")
    jobs = []
    for name, what in RESUMED.items():
        kind, options = job(bases, *what)
        jobs.append([kind, str(folder / name), options])
    result = launch(folder, jobs)
    assert result.returncode != 0
    assert "signal 9" in result.stdout.lower() or "SIGKILL" in result.stdout, result.stdout[-4000:]
    left = {
        name: sorted(p.name for p in (folder / f"{name}.partial").iterdir()) for name in RESUMED
    }
    return folder, left, result.stdout


@pytest.fixture(scope="module")
def trained(bases, interrupted, tmp_path_factory):
    """What one launch trains: a folder of whole trainings, and the interrupted ones; two logs.

    A launch takes longer than all of its trainings.
    """
    folder = tmp_path_factory.mktemp("two")
    whole = {**JOBS, **{name: what[:4] for name, what in RESUMED.items()}}
    jobs = []
    for place, which in ((folder, whole), (interrupted[0], {n: whole[n] for n in RESUMED})):
        for name, what in which.items():
            kind, options = job(bases, *what)
            jobs.append([kind, str(place / name), options])
    result = launch(folder, jobs)
    assert result.returncode == 0, result.stdout[-4000:]
    logs = result.stdout.split(f"job {len(whole)}:")
    assert len(logs) == 2
    return folder, *logs


@pytest.fixture(scope="module")
def two(trained):
    """Folder of the models that two processes train, and their log."""
    folder, log, _ = trained
    return folder, log


@pytest.fixture(scope="module")
def resumed(interrupted, trained):
    """Folder of models whose training was interrupted and run again, and both logs."""
    folder, left, log = interrupted
    return folder, left, log, trained[2]


def assert_same_weights(a: Path, b: Path, tolerance: float) -> None:
    left, right = (load_file(folder / "model.safetensors") for folder in (a, b))
    torch.testing.assert_close(left, right, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_train_the_model_that_one_does(one, two, bases, name):
    folder, _ = two
    assert_same_weights(one / name, folder / name, 1e-5)
    a, b = read_sidecar(one / name), read_sidecar(folder / name)
    assert a["steps"] == b["steps"] > 2
    # Each process made a share of the rows, and all counted them together.
    for counted in ("counts", "rows", "response_tokens", "tokens", "labels", "neutralised"):
        assert a.get(counted) == b.get(counted), counted
    assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)
    # And it was trained, by much more than the tolerance.
    before = load_file(Path(bases[JOBS[name][1]]) / "model.safetensors")
    after = load_file(folder / name / "model.safetensors")
    moved = max((after[k] - before[k]).abs().max() for k in after.keys() & before.keys())
    assert moved > 1e-3


@pytest.mark.parametrize("name", ["sft", "sft-fsdp"])
def test_the_loss_of_gpus_trains_the_model_that_ours_does(one, two, name):
    folder, _ = two
    fused = name.replace("sft", "sft-fused")
    for place in (one, folder):
        assert_same_weights(one / name, place / fused, 1e-5)
        ours, theirs = read_sidecar(one / name), read_sidecar(place / fused)
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)


def test_the_log_states_the_batch_once(two):
    _, log = two
    lines = re.findall(r"global batch .*", log)
    assert len(lines) == len(JOBS) + len(RESUMED)  # by the main process only
    assert lines[0] == "global batch 8 = 2 processes x 2 rows x 2 accumulation steps"
    assert log.count("sharded over 2 processes") == sum(
        "sharding" in what[2] for what in (*JOBS.values(), *RESUMED.values())
    )


def test_processes_wait_for_the_main_one_while_it_hashes_or_saves(trained):
    assert "processes wait 4:00:00 for each other" in trained[2]


@pytest.mark.parametrize("name", ["sft-lora-fsdp", "dpo-fsdp"])
def test_policies_load_plainly_with_tokenizer_and_generation_config(two, bases, name):
    folder, _ = two
    start = AutoModelForCausalLM.from_pretrained(bases["mistral"])
    policy = AutoModelForCausalLM.from_pretrained(folder / name)
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    assert [n for n, _ in policy.named_parameters()] == [n for n, _ in start.named_parameters()]
    assert policy.generation_config.eos_token_id == start.generation_config.eos_token_id
    assert tokenizer.chat_template
    names = {path.name for path in (folder / name).iterdir()}
    assert names == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_a_sharded_reward_model_loads_plainly(two):
    folder, _ = two
    model = AutoModelForSequenceClassification.from_pretrained(folder / "reward-fsdp")
    assert model.config.id2label == {0: "quality", 1: "length"}


@pytest.mark.parametrize("name", RESUMED)
def test_two_processes_go_on_where_they_were_interrupted(two, resumed, name):
    folder, left, *_ = resumed
    uninterrupted, _ = two
    assert "complete" in left[name]
    assert_same_weights(uninterrupted / name, folder / name, 1e-6)
    a, b = read_sidecar(uninterrupted / name), read_sidecar(folder / name)
    assert not (folder / f"{name}.partial").exists()
    assert a["loss_curve"][-1][0] == b["loss_curve"][-1][0] == 6
    assert a["train_loss"] == pytest.approx(b["train_loss"], abs=2e-6)


def test_what_the_interrupted_processes_left(resumed):
    _, left, log, again = resumed
    assert "checkpoint-3" in left["stopped"]  # asked to stop after step 3, it saved
    assert "stopped by SIGTERM after step 3" in log
    assert "checkpoint-4" in left["killed"]  # killed after step 5: the last was after step 4
    assert re.findall(r"resuming after (\d) of 6 steps", again) == ["3", "4"]
