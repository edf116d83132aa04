"""benchmarks.compare_variants: what a variant changes is made anew, and nothing else or twice."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from benchmarks.compare_variants import VARIANTS, arguments, chain_of, markdown_table, overlay_of
from benchmarks.harness import planned_jobs
from dpa.config.load import load_config
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import merge
from tests.support.rule_commands import Command, of
from tests.support.snakemake_runs import MINI, snakemake

SMALL = {"dpa": {"iterations": 1, "replay_fraction": 0.5}, "evaluation": {"directions": 2}}


@pytest.mark.slow
def test_variants_start_from_the_plain_run(tmp_path):
    runs = tmp_path / "runs"
    sizes = {k: v for k, v in merge(yaml.safe_load(MINI), SMALL).items() if k != "extends"}

    def run() -> str:
        command = [sys.executable, "-m", "benchmarks.compare_variants", "run", "replay-plain"]
        command += ["--runs", str(runs), "--seeds", "3", "--override", json.dumps(sizes)]
        return subprocess.run(command, cwd=CLONE, check=True, text=True, capture_output=True).stdout

    def model(variant: str, stage: str):
        return runs / f"3/{variant}/results/quickstart/seed3/{stage}/model.safetensors"

    def numbers(variant: str) -> dict[str, float]:
        return json.loads((runs / f"3/{variant}/done.json").read_bytes())

    assert "replay-plain, seed 3" in run()
    first = numbers("replay-plain")
    # Stopped when the policy was being made anew: what came of the old one is still there.
    folder = runs / "3/replay-plain"
    (folder / "done.json").unlink()
    shutil.rmtree(folder / "results/quickstart/seed3/dpa/iter1/policy")
    assert "replay-plain, seed 3" in run()
    assert (folder / "results/quickstart/seed3/dpa/iter1/policy").exists()
    assert numbers("replay-plain")["gold t=1"] == first["gold t=1"]
    for stage, same in (("reward_model/model", True), ("dpa/iter1/policy", False)):
        plain, variant = model("plain", stage), model("replay-plain", stage)
        assert (plain.stat().st_mtime == variant.stat().st_mtime) is same
        assert (plain.read_bytes() == variant.read_bytes()) is same
    plain, variant = (
        json.loads((runs / f"3/{v}/done.json").read_bytes()) for v in ("plain", "replay-plain")
    )
    assert variant["gold t=1"] != plain["gold t=1"]
    assert 0 < variant["minutes"] < plain["minutes"]
    assert run() == "", "what is done was done again"

    # A copy that was cut short, and a run that was killed before its end.
    shutil.move(runs / "3/replay-plain", runs / "3/replay-plain.partial")
    assert "plain, seed 3" in run()
    assert (
        json.loads((runs / "3/replay-plain/done.json").read_bytes())["gold t=1"]
        == variant["gold t=1"]
    )


def test_gains_are_over_the_same_seeds():
    columns = ["variant", "seed", "r t=4", "gold t=4", "gold hypervolume"]
    rows = [("plain", 1, 50, 40, 9), ("plain", 2, 50, 50, 9), ("min", 2, 50, 52, 12)]
    *_, plain, variant = markdown_table(pd.DataFrame(rows, columns=columns)).splitlines()
    assert plain == "| plain | 2 | 50.0 | 45.0 ± 5.0 | 9.0 |  |  |  |"
    assert variant == "| min | 1 | 50.0 | 52.0 | 12.0 | 2.0 | 3.0 | 1 of 1 |"


def test_what_a_variant_starts_from_comes_first():
    assert chain_of("feedback-all") == ["plain", "feedback", "feedback-all"]
    assert all(chain_of(name)[0] == "plain" for name in VARIANTS)
    with pytest.raises(InputError, match="no such variant"):
        chain_of("feedbak")


def planned(tmp_path, name):
    """The commands that would make a variant, in an empty folder."""
    options = ["-n", "-p", "--forceall", "--cores", "1"]
    output = snakemake(tmp_path, *arguments(tmp_path / name, 7, {"shards": 1}, options)).stdout
    return [Command(*job) for job in planned_jobs(output)]


def values(command, flag):
    """Of a flag that is given several times."""
    pairs = zip(command.arguments, command.arguments[1:], strict=False)
    run = "results/quickstart/seed7/"
    return [value.removeprefix(run) for name, value in pairs if name == flag]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_valid_configuration(name):
    config = load_config({"experiment": "quickstart", **overlay_of(name, 7, {})})
    assert config.seeds == [7]
    feedback = config.feedback
    rated = feedback.best_per_prompt + feedback.random_per_prompt
    assert (feedback.annotator is not None) is ("feedback" in name)
    assert rated == (16 if "-16" in name else 8)
    assert (config.dpa.candidates == "all") is ("all" in name.split("-"))
    assert (feedback.start == "previous") is ("previous" in name)
    many = any(part in name for part in ("min", "penalty", "warm"))
    assert config.reward_model.members == (3 if many else 1)
    assert config.reward_model.average is (name == "warm")
    assert (config.dpa.pessimism != "none") is ("min" in name or "penalty" in name)


@pytest.mark.slow
def test_own_samples_are_rated_before_an_iteration_selects(tmp_path):
    jobs = planned(tmp_path, "feedback-16-rescored")
    for t in (1, 4):
        [asked] = [c for c in jobs if c.script == "annotate_feedback" and f"iter{t}." in c.log]
        assert values(asked, "--to-rate") == [f"feedback/iter{t}/to_rate.jsonl"]
        learnt = of(jobs, "train_reward_model", f"iter{t + 1}.log")
        labels = [f"feedback/iter{i}/ratings.jsonl" for i in range(1, t + 1)]
        assert values(learnt, "--ratings") == ["data/ratings.jsonl", *labels]
        model = [f"feedback/iter{t + 1}/reward_model/model"]
        again = of(jobs, "score_responses", f"rescore_responses/dpa/iter{t}-")
        originals = of(jobs, "annotate_responses", f"rescore_replay/iter{t}-")
        assert values(again, "--reward-model") == values(originals, "--reward-model") == model
        assert values(again, "--samples") == [f"dpa/iter{t}/sampled/0.jsonl"]
        assert values(originals, "--prompts") == [f"data/prompts/d{2 - t % 2}.jsonl"]
        chosen = of(jobs, "select_responses", f"iter{t}.log")
        assert values(chosen, "--scored") == values(again, "--output")
        assert values(chosen, "--annotations") == values(originals, "--output")
        assert ("--shared" in chosen.arguments) is (t == 1)
        trained = of(jobs, "finetune_policy", f"dpa/iter{t}.log")
        assert values(trained, "--selected") == values(chosen, "--output")
        # What is rated was chosen by the model before, which has seen no label of it.
        [rated] = [c for c in jobs if c.script == "choose_samples_to_rate" and f"iter{t}." in c.log]
        assert values(rated, "--scored") == [f"dpa/iter{t}/scored/0.jsonl"]


@pytest.mark.slow
def test_three_models_choose_and_learn_from_feedback(tmp_path):
    jobs = planned(tmp_path, "feedback-16-min")
    for t in (1, 4):
        chosen = of(jobs, "select_responses", f"dpa/iter{t}.log")
        assert (chosen.value("--members"), chosen.value("--pessimism")) == ("3", '"min"')
        members = ("", "/member1", "/member2")
        assert values(chosen, "--scored") == [f"dpa/iter{t}/scored{m}/0.jsonl" for m in members]
    learnt = [c for c in jobs if c.script == "train_reward_model" and "iter4.log" in c.log]
    assert [len(values(c, "--ratings")) for c in learnt] == [4, 4, 4]


@pytest.mark.slow
def test_reward_models_are_averaged(tmp_path):
    [average] = [c for c in planned(tmp_path, "warm") if c.script == "average_reward_models"]
    folders = [f"reward_model/member{m}/model" for m in (1, 2, 3)]
    assert values(average, "--reward-model") == folders


@pytest.mark.slow
def test_reward_models_continue(tmp_path):
    jobs = planned(tmp_path, "feedback-16-previous")
    learnt = [c for c in jobs if c.script == "train_reward_model" and "retrain_" in c.log]
    started = {"reward_model/model", *(f"feedback/iter{t}/reward_model/model" for t in (2, 3))}
    assert {values(c, "--reward-model")[0] for c in learnt} == started
