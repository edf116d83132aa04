"""Which model scores what where samples are rated between iterations, without running it."""

import json
import shlex
import subprocess
import sys

import pytest

from tests.support.rule_commands import TINY, Command, add_experiment, of, planned_commands
from tests.support.snakemake_runs import snakemake

#: Three iterations, so that there are two reward models more.
FEEDBACK = """
shards: 1
methods: [dpa, rsf, directional_dpo]
dpa: {iterations: 3}
rsf: {iterations: 2}
directional_dpo: {iterations: 2}
feedback: {annotator: {kind: gold}, prompts_per_iteration: 5}
alpacaeval: null
rewardbench: null
"""
FIRST = "results/tiny/reward_model/model"


def own(iteration):
    return f"results/tiny/feedback/iter{iteration}/reward_model/model"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = add_experiment(tmp_path_factory.mktemp("clone"), "tiny", TINY, FEEDBACK)
    return planned_commands(folder, "--config", "experiment=tiny")


#: Where samples are rated over HTTP.
ENDPOINT = """
feedback:
  annotator:
    kind: endpoint
    model: org/rater
    base_url: http://localhost:1/v1
    key_variable: RATER_KEY
    price: {input: 1, output: 2}
    max_cost: 2.5
    concurrency: 7
    rubrics: {helpsteer-verbosity: {text: "0: {terse}; 4: long."}}
"""


#: Says which rules run where Snakemake does; a dry run does not.
LOCAL = """
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
    workflow = api.workflow(
        resource_settings=ResourceSettings(cores=1), snakefile=Path("Snakefile").resolve(),
        config_settings=ConfigSettings(config={"experiment": "tiny"}),
    )._workflow
    for name in ("annotate_feedback", "choose_samples_to_rate"):
        print(name, name in workflow._localrules)
"""


def test_an_endpoint_is_asked_from_where_the_run_is(tmp_path):
    """Nodes of a cluster may have neither network nor key; and other limits are no new ratings."""
    folder = add_experiment(tmp_path, "tiny", TINY, FEEDBACK, ENDPOINT)
    target = "results/tiny/feedback/iter1/ratings.jsonl"
    text = snakemake(folder, "-n", "-p", target, "--config", "experiment=tiny").stdout
    [line] = [line for line in text.splitlines() if "-m scripts.annotate_feedback" in line]
    asked = Command("annotate_feedback", shlex.split(line), "")
    assert (asked.value("--concurrency"), asked.value("--max-cost")) == ("7", "2.5")
    annotator = json.loads(asked.value("--annotator"))
    assert annotator["rubrics"]["helpsteer-verbosity"]["text"] == "0: {terse}; 4: long."
    assert not {"concurrency", "max_cost"} & set(annotator)
    names = ("instruction_following", "truthfulness", "honesty", "helpfulness")
    weighed = [*(f"ultrafeedback-{name}" for name in names), "helpsteer-verbosity"]
    assert asked.value("--attributes").split(",") == weighed
    done = subprocess.run(
        [sys.executable, "-c", LOCAL], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["annotate_feedback", "True", "choose_samples_to_rate", "False"]


def test_dpa_selects_by_its_own_models_and_all_else_by_the_first(planned):
    model = {
        command.log.removeprefix("results/tiny/logs/"): command.value("--reward-model")
        for command in planned
        if "--reward-model" in command.arguments
    }
    by_own = ("score_responses/dpa/", "annotate_rep", "score_evaluation/selector/")
    others = {log for log in model if not log.startswith(by_own)}
    assert {model[log] for log in others} == {FIRST}
    assert {"annotate_responses/0.log", "score_evaluation/reward_model/dpa-3.log"} <= others
    assert {"score_responses/rsf/100_0/iter2-0.log"} <= others
    assert {"score_responses/directional_dpo/iter2-0.log"} <= others
    scored = [model[f"score_responses/dpa/iter{t}-0.log"] for t in (1, 2, 3)]
    assert scored == [FIRST, own(2), own(3)]
    assert [model[f"annotate_replay/iter{t}-0.log"] for t in (2, 3)] == [own(2), own(3)]
    evaluated = {log: found for log, found in model.items() if "score_evaluation/selector/" in log}
    assert evaluated == {f"score_evaluation/selector/dpa-{t}.log": own(t) for t in (2, 3)}
    collected = of(planned, "collect_validation_rewards", "").arguments
    selectors = [collected[i + 1] for i, flag in enumerate(collected) if flag == "--selector"]
    folders = ("reward_model", "selector", "selector")
    assert selectors == [
        f"results/tiny/evaluation/scored_by/{folder}/dpa-{t}.jsonl"
        for t, folder in enumerate(folders, 1)
    ]


def test_replay_is_chosen_by_the_same_model(planned):
    annotations = [
        of(planned, "select_responses", f"{part}.log").value("--annotations")
        for part in ("dpa/iter1", "dpa/iter2", "dpa/iter3", "rsf/100_0/iter2")
    ]
    first = "results/tiny/annotations/0.jsonl"
    own_files = [f"results/tiny/feedback/iter{t}/annotations/0.jsonl" for t in (2, 3)]
    assert annotations == [first, *own_files, first]
    prompts = of(planned, "annotate_responses", "annotate_replay/iter2").value("--prompts")
    assert prompts == "results/tiny/data/prompts/d2.jsonl"


def test_an_iteration_learns_from_all_samples_before(planned):
    third = of(planned, "train_reward_model", "retrain_reward_model/iter3")
    given = [v for f, v in zip(third.arguments, third.arguments[1:], strict=False)
             if f == "--ratings"]  # fmt: skip
    assert given == ["results/tiny/data/ratings.jsonl",
                     *(f"results/tiny/feedback/iter{t}/ratings.jsonl" for t in (1, 2))]  # fmt: skip
    # Of the last iteration nothing is rated: no reward model comes after it.
    assert [c.value("--iteration") for c in planned if c.script == "annotate_feedback"] == [
        "1", "2"
    ]  # fmt: skip
    chosen = of(planned, "choose_samples_to_rate", "iter2")
    assert chosen.value("--prompts") == "results/tiny/data/prompts/d2.jsonl"
    assert chosen.value("--before") == "results/tiny/feedback/iter1/to_rate.jsonl"
    assert chosen.value("--most-prompts") == "5"


def test_reward_models_continue_each_other_where_asked(tmp_path):
    more = FEEDBACK + "reward_model: {members: 2}\ndpa: {iterations: 3, pessimism: min}\n"
    more = more.replace("dpa: {iterations: 3}\n", "", 1)
    folder = add_experiment(tmp_path, "tiny", TINY, more, "feedback: {start: previous}")
    planned = planned_commands(folder, "--config", "experiment=tiny")
    started = {
        command.log.removeprefix("results/tiny/logs/"): command.value("--reward-model")
        for command in planned
        if command.script == "train_reward_model" and "--reward-model" in command.arguments
    }
    member = "results/tiny/feedback/iter2/reward_model/member1/model"
    assert started == {
        "retrain_reward_model/iter2.log": FIRST,
        "retrain_reward_model/iter3.log": own(2),
        "retrain_reward_model/member1/iter2.log": "results/tiny/reward_model/member1/model",
        "retrain_reward_model/member1/iter3.log": member,
    }
    # What is continued is an input, so that it is made before and its change reruns the next.
    logs = [command.log for command in planned]
    first, second = (logs.index(f"results/tiny/logs/retrain_reward_model/{name}.log")
                     for name in ("iter2", "iter3"))  # fmt: skip
    assert logs.index("results/tiny/logs/train_reward_model.log") < first < second
