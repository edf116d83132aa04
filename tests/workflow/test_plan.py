"""plan_run as people call it, against what Snakemake itself would run."""

import csv
import json
import re
import subprocess
import sys

import pytest
import yaml

from dpa.config.load import load_config
from dpa.plan.assumptions import load_assumptions
from dpa.plan.stages import stage_jobs, stored_bytes
from dpa.plan.work import Experiment
from tests.support.plan_example import OVERLAY, ROUND
from tests.support.rule_commands import of, planned_commands
from tests.support.snakemake_runs import copy_repository, environment, planned_jobs

METHODS = (
    "[dpa, sft, steerlm, dpo, ppo, rsf, reward_soup, directional_dpo, ric, online_dpo, "
    "best_of_n_sft, best_of_n_steerlm]"
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = copy_repository(tmp_path_factory.mktemp("clone"))
    (folder / "experiments/mine.yaml").write_text(yaml.safe_dump(OVERLAY))
    (folder / "numbers.yaml").write_text(yaml.safe_dump(ROUND))
    return folder


def plan_run(folder, *arguments, experiment="mine"):
    return subprocess.run(
        [sys.executable, "-m", "scripts.plan_run", "--experiment", experiment, "--assumptions",
         "numbers.yaml", *arguments],
        cwd=folder, env=environment(), text=True, capture_output=True,
    )  # fmt: skip


def preflight_inputs(folder, *settings):
    """What preflight is given: the trained stages, and the evaluated policies."""
    planned = planned_commands(folder, "figures", "--config", "experiment=mine", *settings)
    file = of(planned, "preflight").value("--settings")
    return json.loads((folder / file.removeprefix("@")).read_text())[2:]


@pytest.mark.slow
def test_jobs_are_those_of_the_dry_run(clone, monkeypatch):
    settings = [
        "shards=7",
        "evaluation={judge: {share: 0.2}}",
        "plan={gpu_memory_gb: 250, gpus: 16}",
        "compute={training_nodes: 2}",
        "dpa={iterations: 3}",
        "reward_model={members: 3}",
        f"methods={METHODS}",
    ]
    result = plan_run(
        clone,
        "--price",
        "2.5",
        "--output",
        "plan.csv",
        *(part for s in settings for part in ("--config", s)),
    )
    assert result.returncode == 0, result.stderr
    with open(clone / "plan.csv") as file:
        rows = {row["rule"]: row for row in csv.DictReader(file)}
    total = rows.pop("total")
    jobs = planned_jobs(clone, "--config", "experiment=mine", *settings)
    jobs.pop("all")
    assert {rule: int(row["jobs"]) for rule, row in rows.items()} == jobs
    assert int(total["jobs"]) == sum(jobs.values())
    assert rows["train_reward_model"]["jobs"] == "3"
    assert jobs["score_responses"] == 3 * jobs["sample_responses"]
    assert rows["finetune_policy"]["devices_per_job"] == "16"  # 8 on each node
    assert float(rows["sample_responses"]["tokens_sampled"]) == pytest.approx(
        jobs["sample_responses"] / 7 * 1000 * 80 * 200, rel=1e-4
    )
    # Preflight has no DAG, and comes to the same bytes.
    monkeypatch.chdir(clone)
    overrides = {
        "shards": 7,
        "dpa": {"iterations": 3},
        "reward_model": {"members": 3},
        "evaluation": {"judge": {"share": 0.2}},
        "methods": METHODS.strip("[]").split(", "),
    }
    config = load_config({"experiment": str(clone / "experiments/mine.yaml"), **overrides})
    experiment = Experiment(config, load_assumptions(clone / "numbers.yaml"))
    kept = sum(float(row["gigabytes_kept"]) for row in rows.values())
    stages, policies = preflight_inputs(clone, *settings)
    stored = stored_bytes(experiment, stage_jobs(config, stages, policies), 1)
    assert stored == pytest.approx(kept * 1e9, rel=1e-4)
    assert "Critical path" in result.stdout
    assert "the paper reports 60" in result.stdout
    cost = re.search(r"at \$2.50 per GPU-hour: \$([\d,.]+) - \$([\d,.]+) for", result.stdout)
    assert [float(end.replace(",", "")) / 2.5 for end in cost.groups()] == pytest.approx(
        [float(total[f"device_hours_{end}"]) for end in ("least", "most")], rel=1e-3
    )


def test_the_small_pretrained_model_takes_less_than_an_hour(clone):
    result = plan_run(clone, experiment="smollm2-135m")
    assert result.returncode == 0, result.stderr
    wall = re.search(r"Wall time with 1 \S+ GPUs at a time: .* - ([\d.]+) (\w+)", result.stdout)
    assert wall[2] == "min"
    assert float(wall[1]) < 60


def test_what_does_not_fit_ends_with_its_remedy(clone):
    result = plan_run(clone, "--config", "plan.gpu_memory_gb=16", "reward_model")
    assert result.returncode == 2
    assert "train_reward_model needs" in result.stderr
    assert "finetune_policy" not in result.stdout
    assert "Traceback" not in result.stderr
