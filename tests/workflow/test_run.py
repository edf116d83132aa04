"""The real workflow on a small quickstart: artefacts, reruns, shards, kill and resume."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import merge
from tests.support.browser import load
from tests.support.snakemake_runs import (
    MINI,
    command,
    copy_repository,
    environment,
    planned_jobs,
    snakemake,
)

pytestmark = pytest.mark.slow

EXPERIMENT = "mini"
RESULTS = Path("results") / EXPERIMENT
CONFIG = ("--config", f"experiment={EXPERIMENT}")
#: The figures that follow from the methods of the small experiment.
FIGURES = [
    "figure1", "figure4", "overoptimisation", "response_length", "reward_against_length",
    "reward_model", "costs", "training_curves",
]  # fmt: skip
#: The rules that draw and tabulate what the validation rewards of all policies say.
SHOWING = {"plot_pareto_front", "plot_overoptimisation", "plot_samples", "plot_costs",
           "make_table1", "make_report", "collect_provenance"}  # fmt: skip
SELECTED = [RESULTS / f"dpa/iter{t}/selected.jsonl" for t in (1, 2)]


def add_experiment(folder: Path) -> Path:
    """A copy of the repository with the small experiment in it."""
    copy_repository(folder)
    quickstart = yaml.safe_load((CLONE / "experiments/quickstart.yaml").read_text())
    text = yaml.safe_dump(merge(quickstart, yaml.safe_load(MINI)))
    (folder / f"experiments/{EXPERIMENT}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    folder = add_experiment(tmp_path_factory.mktemp("finished"))
    result = snakemake(folder, "--cores", "2", *CONFIG)
    assert "figure4.png shows" in result.stdout
    return folder


def test_artefacts_have_their_contracted_names_and_columns(finished):
    with open(finished / RESULTS / "evaluation/validation_rewards.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "method", "iteration", "seed", "direction_index", "v_helpfulness", "v_verbosity",
        "r_helpfulness", "r_verbosity", "gold_helpfulness", "gold_verbosity", "mean_tokens", "n",
        "unseen_r_helpfulness", "unseen_r_verbosity", "unseen_gold_helpfulness",
        "unseen_gold_verbosity", "unseen_mean_tokens", "unseen_n",
    ]  # fmt: skip
    counts = {(row["method"], row["iteration"]): 0 for row in rows}
    for row in rows:
        counts[row["method"], row["iteration"]] += 1
    assert counts == {("dpa", "0"): 4, ("dpa", "1"): 4, ("dpa", "2"): 4, ("sft", ""): 1}
    assert [row["direction_index"] for row in rows if row["method"] == "sft"] == ["-1"]
    with open(finished / RESULTS / "reward_model/metrics.csv") as file:
        metrics = list(csv.DictReader(file))
    assert list(metrics[0]) == ["attribute", "n", "pearson", "spearman", "rmse"]
    assert len(metrics) == 10
    for figure in FIGURES:
        for kind in ("pdf", "svg", "png"):
            assert (finished / RESULTS / f"figures/{figure}.{kind}").stat().st_size > 5000
        assert (finished / RESULTS / f"figures/{figure}.md").read_text().startswith("**")
    for table in ("table1", "comparison", "figure1", "costs", "reward_model"):
        assert {".csv", ".md", ".tex"} == {
            path.suffix for path in (finished / RESULTS / "tables").glob(f"{table}.[cmt]*[vdx]")
        }


def test_the_report_is_one_page_with_every_figure(finished, tmp_path):
    seen = load(finished / RESULTS / "report.html", tmp_path)
    assert seen["errors"] == seen["requests"] == seen["broken"] == []
    assert len(seen["images"]) == len(FIGURES)
    assert all(shown for _, shown, _ in seen["images"])


def test_selected_data_is_complete_and_accounted_for(finished):
    for path in SELECTED:
        rows = [json.loads(line) for line in (finished / path).read_text().splitlines()]
        sampled = [row for row in rows if row["origin"] == "sampled"]
        assert len(sampled) == 12 * 2
        assert len(rows) - len(sampled) == round(24 * 0.15 / 0.85)
        sidecar = json.loads((finished / f"{path}.meta.json").read_text())
        assert (
            sidecar["counts"]
            == {
                "read": 12,
                "kept": 12,
                "dropped": {"no candidates": 0},
            }
            or sidecar["counts"]["dropped"] == {}
        )
        assert sidecar["base_seed"] == "0"
        assert len(sidecar["config_hash"]) == 16
        assert all(sidecar["inputs"].values())


def test_no_validation_prompt_is_trained_on(finished):
    def ids(path):
        with open(finished / RESULTS / path) as file:
            return {json.loads(line)["prompt_id"] for line in file}

    held_out = ids("data/prompts/validation.jsonl")
    assert len(held_out) == 8 + 2  # those about unseen animals
    for path in ("data/prompts/d1.jsonl", "data/prompts/d2.jsonl", "dpa/iter1/selected.jsonl",
                 "dpa/iter2/selected.jsonl"):  # fmt: skip
        assert not held_out & ids(path)
    with open(finished / RESULTS / "data/ratings.jsonl") as file:
        rated = [json.loads(line) for line in file]
    assert not held_out & {row["prompt_id"] for row in rated if row["split"] == "train"}


def test_policies_load_with_plain_transformers(finished):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    asked = {"dpa/iter0": {"condition": [80, 20]}, "dpa/iter2": {"direction": [0.8, -0.6]}}
    written = {"dpa/iter0": "helpfulness=80, verbosity=20",
               "dpa/iter2": "helpfulness*80 + verbosity*-60"}  # fmt: skip
    for policy in ("sft", "dpa/iter0", "dpa/iter2"):
        folder = finished / RESULTS / policy / "policy"
        AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        turns = [{"role": "user", "content": "Describe the otter."}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, **asked.get(policy, {}))
        assert written.get(policy, "Describe the otter.") in text
    model = AutoModelForSequenceClassification.from_pretrained(
        finished / RESULTS / "reward_model/model"
    )
    assert model.config.id2label[4] == "helpsteer-verbosity"
    assert model.config.num_labels == 10


def test_a_second_run_does_nothing(finished):
    assert planned_jobs(finished, *CONFIG) == {}


def test_a_deleted_figure_is_redrawn_alone(finished):
    figure = finished / RESULTS / "figures/figure4.pdf"
    before = figure.read_bytes()
    figure.unlink()
    target = str(RESULTS / "figures/figure4.pdf")
    assert planned_jobs(finished, *CONFIG, "--", target) == {"plot_pareto_front": 1}
    jobs = {"plot_pareto_front": 1, "make_report": 1, "collect_provenance": 1, "all": 1}
    assert planned_jobs(finished, *CONFIG) == jobs
    snakemake(finished, "--cores", "2", *CONFIG)
    assert figure.read_bytes() == before
    assert planned_jobs(finished, *CONFIG) == {}


@pytest.mark.parametrize(
    ("option", "redrawn"),
    [
        ("uncertainty: bars", {"plot_pareto_front"}),
        ("published: true", {"plot_pareto_front"}),
        ("prompts: [2]", {"plot_samples"}),
        (
            "style: {dpi: 90}",
            {"plot_pareto_front", "plot_overoptimisation", "plot_samples", "plot_costs",
             "plot_reward_model", "plot_training_curves"},
        ),
    ],
)  # fmt: skip
def test_a_plotting_option_redraws_and_nothing_else(finished, option, redrawn):
    jobs = planned_jobs(finished, *CONFIG, f"figures={{{option}}}")
    assert set(jobs) == {*redrawn, "make_report", "collect_provenance", "all"}


def test_more_iterations_extend_the_run(finished):
    jobs = planned_jobs(finished, *CONFIG, "dpa={iterations: 3}")
    assert jobs == {
        "sample_responses": 2,
        "score_responses": 2,
        "select_responses": 1,
        "finetune_policy": 1,
        "sample_evaluation": 1,
        "score_evaluation": 1,
        "measure_divergence": 1,
        "plot_overoptimisation": 1,
        "collect_validation_rewards": 1,
        "make_table1": 1,
        "plot_pareto_front": 1,
        "plot_samples": 1,
        "plot_costs": 1,
        "plot_training_curves": 1,
        "make_report": 1,
        "collect_provenance": 1,
        "all": 1,
    }


@pytest.mark.parametrize("setting", ["temperature: 0.5", "directions: 3"])
def test_evaluation_settings_do_not_retrain(finished, setting):
    jobs = planned_jobs(finished, *CONFIG, f"evaluation={{{setting}}}")
    assert set(jobs) == {
        "sample_evaluation", "score_evaluation", "measure_divergence",
        "collect_validation_rewards", "all", *SHOWING
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "first", "spared"),
    [
        ("steerlm={top_fraction: 0.5}", "compute_conditions", "train_initial_policy"),
        ("steerlm={noise: 2.0}", "sample_responses", "compute_conditions"),
        ("dpa={replay_fraction: 0.5}", "select_responses", "annotate_responses"),
    ],
)
def test_a_changed_setting_reruns_what_it_is_for(finished, setting, first, spared):
    jobs = planned_jobs(finished, *CONFIG, setting)
    assert first in jobs
    assert spared not in jobs


@pytest.mark.parametrize(
    ("edited", "rerun", "spared"),
    [
        ("scripts/plot_pareto_front.py", "plot_pareto_front", "score_evaluation"),
        ("dpa/methods/best_of_n.py", "select_responses", "train_reward_model"),
        ("dpa/evaluation/metrics.py", "plot_pareto_front", "score_evaluation"),
    ],
)
def test_edited_code_reruns_its_rules(finished, edited, rerun, spared):
    path = finished / edited
    original = path.read_text()
    try:
        path.write_text(original + "\n\nEDITED = 1\n")
        jobs = planned_jobs(finished, *CONFIG)
        assert rerun in jobs
        assert spared not in jobs
    finally:
        path.write_text(original)


def test_other_shards_and_a_kill_give_the_same_bytes(finished, tmp_path):
    """One shard instead of two, in all stages that have shards; killed while sampling; resumed."""
    folder = shutil.copytree(finished, tmp_path / "clone")
    for made in ("annotations", "steerlm", "dpa", "evaluation"):
        shutil.rmtree(folder / RESULTS / made)
    arguments = ["--cores", "2", *CONFIG, "shards=1", "--nolock", str(SELECTED[1])]
    process = subprocess.Popen(
        command(*arguments), cwd=folder, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    partial = folder / RESULTS / "dpa/iter1/sampled/0.jsonl.partial"
    deadline = time.monotonic() + 300
    while not (partial.exists() and partial.stat().st_size):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    snakemake(folder, *arguments, "--rerun-incomplete")
    for path in SELECTED:
        assert (folder / path).read_bytes() == (finished / path).read_bytes()


def test_chat_answers_and_refuses(finished, tmp_path):
    def chat(*arguments, policy=f"{RESULTS}/dpa/iter2/policy"):
        return subprocess.run(
            [*command()[:1], "-m", "scripts.chat", "--policy", policy,
             "--prompt", "Describe the otter.", *arguments],
            cwd=finished, env=environment(), capture_output=True, text=True,
        )  # fmt: skip

    answer = chat("--direction", "0.8,-0.6")
    assert answer.returncode == 0, answer.stderr
    assert "direction: helpfulness +0.80, verbosity -0.60" in answer.stdout
    assert "rewards: helpfulness " in answer.stdout
    assert "length: " in answer.stdout
    assert chat("--angle", "-37").returncode == 0
    refused = chat("--direction", "0.8,-0.8")
    assert refused.returncode == 2
    assert "0.7071,-0.7071" in refused.stderr
    assert "Traceback" not in refused.stderr
    shutil.copytree(finished / RESULTS / "dpa/iter2/policy", tmp_path / "copied")
    copied = chat("--direction", "0.8,-0.6", policy=tmp_path / "copied")
    assert copied.stdout.splitlines()[:-1] == answer.stdout.splitlines()[:-1]
    assert "no reward model found; give --judge-by" in copied.stdout


def test_provenance_sums_the_run(finished):
    """By hand, from the sizes of the small world: no row of any stage is unaccounted for."""
    path = finished / RESULTS / "provenance.json"
    record = json.loads(path.read_text())
    stages = record["stages"]
    assert stages["sample_responses"]["dpa/iter*/sampled/*.jsonl"] == {
        "artefacts": 2 * 2,
        "counts": {"rows": {"read": 12 + 12, "kept": 12 + 12, "dropped": {}}},
        "neutralised": 0,
        "records": 2 * 12 * 2 * 4,
        "response_tokens": stages["sample_responses"]["dpa/iter*/sampled/*.jsonl"][
            "response_tokens"
        ],
        "responses": 2 * 12 * 2 * 4,
        "truncated": stages["sample_responses"]["dpa/iter*/sampled/*.jsonl"]["truncated"],
    }
    scored = stages["score_responses"]["dpa/iter*/scored/*.jsonl"]
    assert scored["counts"]["rows"] == {"read": 192, "kept": 192, "dropped": {}}
    # D1 and D2 come from the same 60 rows, which are counted once.
    prompts = stages["prepare_data"]["data/prompts/d1.jsonl"]["counts"]["rows"]
    assert prompts["read"] - sum(prompts["dropped"].values()) == prompts["kept"] == 24
    assert stages["prepare_data"]["data/prompts/d2.jsonl"]["counts"] == {}
    assert record["base_seeds"] == [0]
    assert "figures/figure4.pdf" in record["artefacts"]
    # Made again, from the same sidecars: the same bytes.
    before = path.read_bytes()
    snakemake(finished, "--cores", "1", *CONFIG, "--forcerun", "collect_provenance")
    assert path.read_bytes() == before


def test_verify_passes_and_names_what_is_damaged(finished):
    """The rule's own command on the whole run; a flipped byte and a lost line are named."""
    target = ("--cores", "1", *CONFIG, "--", "verify")
    result = snakemake(finished, *target)
    assert "artefacts are as their sidecars say" in result.stdout
    samples = finished / RESULTS / "dpa/iter1/sampled/0.jsonl"
    before = samples.read_bytes()
    stamp = samples.stat().st_mtime_ns
    try:
        samples.write_bytes(before[: before.index(b"\n") + 1])
        result = snakemake(finished, *target, check=False)
    finally:
        samples.write_bytes(before)
        os.utime(samples, ns=(stamp, stamp))
    assert result.returncode != 0
    lines = [line for line in result.stdout.splitlines() if line.startswith(str(RESULTS))]
    assert [line.split(": ")[0] for line in lines] == [
        str(RESULTS / "dpa/iter1/sampled/0.jsonl"),
        str(RESULTS / "dpa/iter1/sampled/0.jsonl"),
        str(RESULTS / "dpa/iter1/scored/0.jsonl"),
    ]
    assert "is not what was written" in lines[0]
    assert "has 1 records, its sidecar counts 48" in lines[1]
    assert "was made from another" in lines[2]
    assert planned_jobs(finished, *CONFIG) == {}
