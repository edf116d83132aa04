"""What the workflow plans to do, without doing it."""

import re

import pytest
import yaml

from dpa.config import ROOT
from tests.workflow.helpers import copy_repository, planned_jobs, snakemake

EXPERIMENTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("experiments/**/*.yaml"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("clone"))


def test_quickstart_plans_every_stage(clone):
    jobs = planned_jobs(clone)
    shards, iterations = 2, 4
    assert jobs["sample_responses"] == jobs["score_responses"] == shards * iterations
    assert jobs["select_responses"] == jobs["finetune_policy"] == iterations
    assert jobs["annotate_responses"] == shards
    assert jobs["evaluate_policy"] == iterations + 1 + 3
    assert jobs["plot_pareto_front"] == 1


@pytest.mark.parametrize("shards", [1, 5])
def test_shards_and_iterations_scale_the_plan(clone, shards):
    jobs = planned_jobs(clone, "--config", f"shards={shards}", "dpa={iterations: 3}")
    assert jobs["sample_responses"] == jobs["score_responses"] == shards * 3
    assert jobs["finetune_policy"] == 3


def test_baselines_not_listed_cost_nothing(clone):
    jobs = planned_jobs(clone, "--config", "baselines=[]")
    assert not {"train_dpo", "train_steerlm"} & set(jobs)
    assert jobs["evaluate_policy"] == 5


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=str)
def test_every_experiment_plans(clone, experiment):
    overlay = yaml.safe_load((ROOT / experiment).read_text())
    for ratings in overlay.get("data", {}).get("ratings", []):
        path = ROOT / ratings["train"]["path"]
        if ratings["format"] == "table" and not path.exists():
            pytest.skip(f"{path} is absent")
        if ratings["format"] == "table":
            target = clone / ratings["train"]["path"]
            target.parent.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.exists():
                target.parent.symlink_to(path.resolve().parent)
    jobs = planned_jobs(clone, "--config", f"experiment={experiment}")
    assert jobs["train_reward_model"] == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sead=1", r"sead: unknown key, did you mean 'seed'"),
        ("shards=two", r"shards: .*integer.*'two'"),
        ("dpa={iterations: -1}", r"dpa\.iterations"),
        ("baselines=[sft,ppoo]", r"baselines\.1"),
        ("experiment=nonesuch", r"nonesuch\.yaml: no such file \(known experiments: .*quickstart"),
    ],
)
def test_bad_configuration_fails_first(clone, override, message):
    result = snakemake(clone, "-n", "--config", override, check=False)
    assert result.returncode != 0
    assert re.search(message, result.stdout), result.stdout
    assert "Traceback" not in result.stdout
    assert not (clone / "results").exists()


def test_profile_is_found_by_name(clone):
    result = snakemake(clone, "-n", "--profile", "slurm", "--config", "experiment=quickstart")
    assert "sample_responses" in result.stdout


def test_an_iteration_can_be_asked_for_by_path(clone):
    jobs = planned_jobs(clone, "results/quickstart/dpa/iter1/selected.jsonl")
    assert jobs["sample_responses"] == 2
    assert "finetune_policy" not in jobs
