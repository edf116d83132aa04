"""Several processes train the model that one would, and a killed training the one it would have.

Real launches by accelerate, on CPU processes over gloo; each takes long to start, so that one runs
many trainings (tests/training_jobs.py).
"""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dpa.artefacts.sidecars import read_sidecar
from dpa.training.checkpoints import Checkpoints
from tests import tiny_models
from tests.training_jobs import run
from tests.workflow.helpers import TWO_PROCESSES, environment

FSDP = {"sharding": "fsdp"}
LORA = {"lora": {"rank": 4, "alpha": 8}}
#: Name: kind, architecture, training, schedule. 19 rows in batches of 8, 2 at a time: an epoch ends
#: with a batch of 3, which two processes cannot share equally.
JOBS = {
    "sft": ("finetune", "mistral", {}, {}),
    "sft-packed": ("finetune", "gemma2", {"packing": True}, {"batch_size": 2, "max_length": 48}),
    "sft-fsdp": ("finetune", "gemma2", FSDP | {"gradient_checkpointing": True}, {}),
    "sft-lora": ("finetune", "mistral", LORA, {}),
    "sft-lora-fsdp": ("finetune", "mistral", FSDP | LORA, {}),
    "dpo": ("dpo", "gemma2", {}, {"learning_rate": 1e-3}),
    "dpo-fsdp": ("dpo", "mistral", FSDP, {"learning_rate": 1e-3}),
    "dpo-lora": ("dpo", "mistral", LORA, {"learning_rate": 1e-3}),
    "reward": ("reward_model", "mistral", {}, {}),
    "reward-fsdp": ("reward_model", "llama", FSDP, {}),  # llama's embeddings are tied
    "reward-lora": ("reward_model", "llama", LORA, {}),
    "reward-lora-fsdp": ("reward_model", "gemma2", FSDP | LORA, {}),
}
#: Interrupted and resumed: with a checkpoint behind every second step, of six.
SAVED = {"save_steps": 2}
RESUMED = {
    "stopped": ("finetune", "mistral", SAVED, {}, [signal.SIGTERM, 1, 3]),
    "killed": ("reward_model", "mistral", SAVED | FSDP, {}, [signal.SIGKILL, 1, 5]),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {n: tiny_models.make_causal_lm(folder / n, n) for n in ("mistral", "gemma2", "llama")}


def job(bases, kind, architecture, training, schedule, struck=None):
    options = {"start": bases[architecture], "training": training, "schedule": schedule}
    return kind, options | ({"signal": struck} if struck else {})


def launch(folder: Path, jobs: list) -> subprocess.CompletedProcess:
    """Run jobs on two processes; the log is in stdout."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    return subprocess.run(
        [*TWO_PROCESSES.split(), "-m", "tests.training_jobs", str(path)],
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
def two(bases, tmp_path_factory):
    """Folder of the models that two processes train, and their log."""
    folder = tmp_path_factory.mktemp("two")
    jobs = []
    for name, what in {**JOBS, **{n: r[:4] for n, r in RESUMED.items()}}.items():
        kind, options = job(bases, *what)
        jobs.append([kind, str(folder / name), options])
    result = launch(folder, jobs)
    assert result.returncode == 0, result.stdout[-4000:]
    return folder, result.stdout


@pytest.fixture(scope="module")
def resumed(bases, tmp_path_factory):
    """Folder of models whose training was cut off and run again, and both logs."""
    folder = tmp_path_factory.mktemp("resumed")
    first, second = [], []
    for name, what in RESUMED.items():
        kind, options = job(bases, *what)
        first.append([kind, str(folder / name), options])
        second.append([kind, str(folder / name), job(bases, *what[:4])[1]])
    cut = launch(folder, first)
    assert cut.returncode != 0
    assert "signal 9" in cut.stdout.lower() or "SIGKILL" in cut.stdout, cut.stdout[-4000:]
    left = {
        name: sorted(p.name for p in (folder / f"{name}.partial").iterdir()) for name in RESUMED
    }
    again = launch(folder, second)
    assert again.returncode == 0, again.stdout[-4000:]
    return folder, left, cut.stdout, again.stdout


def assert_same_weights(a: Path, b: Path, tolerance: float) -> None:
    left, right = (load_file(folder / "model.safetensors") for folder in (a, b))
    torch.testing.assert_close(left, right, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_train_the_model_that_one_does(one, two, bases, name):
    folder, _ = two
    assert_same_weights(one / name, folder / name, 1e-5)
    a, b = read_sidecar(one / name), read_sidecar(folder / name)
    assert a["steps"] == b["steps"] > 2
    assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)
    # And it was trained, by much more than the tolerance.
    before = load_file(Path(bases[JOBS[name][1]]) / "model.safetensors")
    after = load_file(folder / name / "model.safetensors")
    moved = max((after[k] - before[k]).abs().max() for k in after.keys() & before.keys())
    assert moved > 1e-3


def test_the_log_states_the_batch_once(two):
    _, log = two
    lines = re.findall(r"global batch .*", log)
    assert len(lines) == len(JOBS) + len(RESUMED)  # by the main process only
    assert lines[0] == "global batch 8 = 2 processes x 2 rows x 2 accumulation steps"
    assert log.count("sharded over 2 processes") == sum(
        "sharding" in what[2] for what in (*JOBS.values(), *RESUMED.values())
    )


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
def test_two_processes_go_on_where_they_were_cut_off(two, resumed, name):
    folder, left, *_ = resumed
    uninterrupted, _ = two
    assert {"complete", "fingerprint"} < set(left[name])
    assert_same_weights(uninterrupted / name, folder / name, 1e-6)
    a, b = read_sidecar(uninterrupted / name), read_sidecar(folder / name)
    assert not (folder / f"{name}.partial").exists()
    assert a["loss_curve"][-1][0] == b["loss_curve"][-1][0] == 6
    assert a["train_loss"] == pytest.approx(b["train_loss"], abs=2e-6)


def test_what_the_interrupted_processes_left(resumed):
    _, left, cut, again = resumed
    assert "checkpoint-3" in left["stopped"]  # asked to stop behind step 3, it saved
    assert "stopped by SIGTERM behind step 3" in cut
    assert "checkpoint-4" in left["killed"]  # killed behind step 5: the last was behind step 4
    assert re.findall(r"resuming behind (\d) of 6 steps", again) == ["3", "4"]


# --- One process -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["finetune", "dpo", "reward_model"])
def test_a_killed_training_goes_on_to_the_same_bytes(bases, tmp_path, kind):
    """A real SIGKILL behind step 5 of 6, in the second epoch, with checkpoints behind 2 and 4."""
    options = job(bases, kind, "mistral", SAVED, {})[1]
    jobs = tmp_path / "jobs.json"
    jobs.write_text(
        json.dumps([[kind, str(tmp_path / "cut"), options | {"signal": [signal.SIGKILL, 0, 5]}]])
    )
    command = [sys.executable, "-m", "tests.training_jobs", str(jobs)]
    killed = subprocess.run(command, text=True, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    partial = tmp_path / "cut.partial"
    assert (partial / "complete").read_text().split() == ["checkpoint-2", "checkpoint-4"]
    # What a kill in the middle of writing a checkpoint leaves is no checkpoint.
    (partial / "checkpoint-5").mkdir()
    (partial / "checkpoint-5" / "trainer_state.json").write_text("{}")
    run(kind, tmp_path / "cut", options)
    run(kind, tmp_path / "whole", options)
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    cut, whole = read_sidecar(tmp_path / "cut"), read_sidecar(tmp_path / "whole")
    assert cut["loss_curve"] == whole["loss_curve"]
    assert cut["train_loss"] == whole["train_loss"]
    assert not partial.exists()


def test_sigterm_saves_even_where_no_checkpoints_are_asked_for(bases, tmp_path):
    options = job(bases, "finetune", "mistral", {}, {})[1]
    run("finetune", tmp_path / "cut", options | {"signal": [signal.SIGTERM, 0, 4]})
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / "cut.partial" / "complete").read_text() == "checkpoint-4"
    for name in ("cut", "whole"):
        run("finetune", tmp_path / name, options)
    assert read_sidecar(tmp_path / "cut") == read_sidecar(tmp_path / "whole") | {"artefact": "cut"}


def test_only_the_same_training_goes_on(tmp_path):
    def begin(fingerprint):
        return Checkpoints(tmp_path / "model", lambda: fingerprint)

    first = begin("a")
    for step in (2, 10):
        (first.folder / f"checkpoint-{step}").mkdir()
        first.mark(step)
    (first.folder / "checkpoint-12").mkdir()  # not complete
    assert begin("a").last == first.folder / "checkpoint-10"
    assert not (first.folder / "checkpoint-12").exists()
    assert begin("b").last is None
    assert not list(first.folder.glob("checkpoint-*"))


def test_the_finished_model_replaces_the_partial_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "model", lambda: "a")
    (checkpoints.folder / "checkpoint-2").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("")
    checkpoints.keep(lambda folder: (folder / "new").write_text(""), {"steps": 2})
    assert Checkpoints(tmp_path / "model", lambda: "a").trained() == {"steps": 2}
    assert Checkpoints(tmp_path / "other", lambda: "a").trained() is None
    told = []
    checkpoints.finish(lambda folder: told.extend(path.name for path in folder.iterdir()))
    assert told == ["new"]
    shutil.rmtree(tmp_path / "other.partial")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
