"""A training that was stopped or killed resumes to the model that it would have trained."""

import shutil
import signal

import pytest

from dpa.artefacts.sidecars import read_sidecar
from dpa.training.checkpoints import Checkpoints
from tests.support.script_processes import HEAVY, processes
from tests.support.training_jobs import run


@pytest.mark.parametrize("kind", ["finetune", "dpo", "reward_model"])
@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bytes(bases, tmp_path, kind):
    """A real SIGKILL after step 5 of 6, in the second epoch, with checkpoints after 2 and 4."""
    options = {"start": bases["mistral"], "trainer": {"save_steps": 2}}
    struck = options | {"signal": [signal.SIGKILL, 0, 5]}
    killed = processes(HEAVY).call(tmp_path, run, kind, tmp_path / "interrupted", struck).wait()
    assert killed.code == -signal.SIGKILL, killed.output
    partial = tmp_path / "interrupted.partial"
    assert (partial / "complete").read_text().split() == ["checkpoint-2", "checkpoint-4"]
    # What a kill in the middle of writing a checkpoint leaves is no checkpoint.
    (partial / "checkpoint-5").mkdir()
    (partial / "checkpoint-5" / "trainer_state.json").write_text("{}")
    run(kind, tmp_path / "interrupted", options)
    run(kind, tmp_path / "whole", options)
    assert (tmp_path / "interrupted" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    interrupted, whole = read_sidecar(tmp_path / "interrupted"), read_sidecar(tmp_path / "whole")
    assert interrupted["loss_curve"] == whole["loss_curve"]
    assert interrupted["train_loss"] == whole["train_loss"]
    assert not partial.exists()


@pytest.mark.slow
def test_sigterm_saves_even_where_no_checkpoints_are_asked_for(bases, tmp_path):
    options = {"start": bases["mistral"]}
    run("finetune", tmp_path / "interrupted", options | {"signal": [signal.SIGTERM, 0, 4]})
    assert not (tmp_path / "interrupted").exists()
    assert (tmp_path / "interrupted.partial" / "complete").read_text() == "checkpoint-4"
    for name in ("interrupted", "whole"):
        run("finetune", tmp_path / name, options)
    assert read_sidecar(tmp_path / "interrupted") == read_sidecar(tmp_path / "whole") | {
        "artefact": "interrupted"
    }


def test_only_the_same_training_goes_on(tmp_path):
    def begin(code):
        return Checkpoints(tmp_path / "model", lambda: {"code": code})

    first = begin("a")
    for step in (2, 10):
        (first.folder / f"checkpoint-{step}").mkdir()
        first.mark(step)
    (first.folder / "checkpoint-12").mkdir()  # not complete
    first.close()
    again = begin("a")
    assert again.last == first.folder / "checkpoint-10"
    again.close()
    assert not (first.folder / "checkpoint-12").exists()
    assert begin("b").last is None
    assert not list(first.folder.glob("checkpoint-*"))


def test_the_finished_model_replaces_the_partial_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "model", lambda: {"code": "a"})
    (checkpoints.folder / "checkpoint-2").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("")
    checkpoints.keep(lambda folder: (folder / "new").write_text(""), {"steps": 2})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "model", lambda: {"code": "a"})
    assert checkpoints.trained() == {"steps": 2}
    other = Checkpoints(tmp_path / "other", lambda: {"code": "a"})
    assert other.trained() is None
    told = []
    checkpoints.finish(lambda folder: told.extend(path.name for path in folder.iterdir()))
    assert told == ["new"]
    shutil.rmtree(tmp_path / "other.partial")
    other.close()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
