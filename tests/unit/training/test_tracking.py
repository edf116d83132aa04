"""Trackers see every training, by name, and change nothing."""

from pathlib import Path

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from dpa.artefacts.files import content_hash
from dpa.config.load import config_hash, load_config
from dpa.errors import InputError
from dpa.plan.preflight import trackers
from dpa.runtime.run_environment import RunEnvironment
from dpa.training.tracking import (
    check_tracker,
    run_name,
    tracker_arguments,
    tracker_environment,
)
from dpa.workflow.flags import section
from tests.support.training_jobs import run


@pytest.fixture
def recorded(monkeypatch):
    """What a tracker that transformers knows by the name `recorder` is told."""
    told: list[tuple] = []

    class Recorder(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            told.append((args.project, args.run_name, logs))

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    return told


def test_a_run_has_the_name_of_its_experiment_and_stage():
    assert run_name(Path("results/mine/dpa/iter2/policy")) == "mine/dpa/iter2"
    assert (
        run_name(Path("/data/results/mine/seed1/reward_model/model")) == "mine/seed1/reward_model"
    )
    assert run_name(Path("results/mine/base_model")) == "mine/base_model"
    assert run_name(Path("/tmp/trial/policy")) == "trial"
    arguments = tracker_arguments(Path("results/mine/sft/policy"), ["trackio", "wandb"])
    assert arguments == {
        "report_to": ["trackio", "wandb"], "run_name": "mine/sft", "project": "dpa",
    }  # fmt: skip
    assert tracker_arguments(Path("results/mine/sft/policy"), []) == {"report_to": "none"}


def test_tensorboard_is_beside_the_model_or_where_it_is_wanted(monkeypatch):
    output = Path("results/mine/sft/policy")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    found = tracker_environment(output)
    assert found["TENSORBOARD_LOGGING_DIR"] == "results/mine/sft/tensorboard"
    assert found["WANDB_PROJECT"] == found["MLFLOW_EXPERIMENT_NAME"] == "dpa"
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "/boards")
    monkeypatch.setenv("WANDB_PROJECT", "my-thesis")
    found = tracker_environment(output)
    assert found["TENSORBOARD_LOGGING_DIR"] == "/boards/mine/sft"
    assert found["WANDB_PROJECT"] == "my-thesis"


def test_a_tracker_that_is_not_there_is_one_line():
    with pytest.raises(
        InputError, match=r"report_to: wandbb: wandbb is not supported, only .*wandb"
    ):
        check_tracker("wandbb")
    config = load_config({"trainer": {"report_to": ["dvclive", "wandbb"]}})
    missing, unknown = trackers(config)
    assert "dvclive: DVCLiveCallback requires dvclive to be installed" in missing
    assert "take it from the list" in missing
    assert "wandbb is not supported" in unknown
    assert "\n" not in missing + unknown
    assert list(trackers(load_config())) == []


def test_whoever_watches_is_no_part_of_a_result():
    plain, watched = load_config(), load_config({"trainer": {"report_to": ["wandb"]}})
    assert watched.trainer.report_to == ["wandb"]
    assert config_hash(plain) == config_hash(watched)
    assert section(plain.trainer) == section(watched.trainer)
    assert section(plain.reward_trainer) == section(watched.reward_trainer)


def test_a_run_reports_and_learns_the_same(tmp_path, bases, recorded, monkeypatch):
    for name in tracker_environment(tmp_path / "policy"):
        monkeypatch.setenv(name, "mine")  # so that what the run sets is gone after it
    options = {"start": bases["llama"], "rows": 19}
    silent = run("finetune", tmp_path / "silent/policy", options)
    assert recorded == []
    monkeypatch.setenv("DPA_REPORT_TO", "recorder")  # as the run that a job is of announces it
    assert RunEnvironment.read().report_to == ("recorder",)
    watched = run("finetune", tmp_path / "results/mine/sft/policy", options)
    assert {told[:2] for told in recorded} == {("dpa", "mine/sft")}
    assert any("loss" in logs for *_, logs in recorded)
    assert content_hash(silent) == content_hash(watched)
