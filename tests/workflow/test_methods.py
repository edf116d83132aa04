"""Every method on a small quickstart with three objectives, with keys in its environment.

One run for both: no stage that loads or trains a model, and no judge, may write a key or name one
on a command line.
"""

import csv
import json
import zipfile
from operator import eq

import pytest

from dpa.conditions import as_condition, desired_rewards, read_ranges
from tests.support.methods_run import CONFIG, RESULTS
from tests.support.snakemake_runs import (
    CANARIES,
    carriers,
    everything_written,
    planned_jobs,
    snakemake,
)

pytestmark = pytest.mark.slow

LABELS = {
    "DPA", "SFT", "SteerLM", "DPO", "PPO (RLOO)", "RSF", "Reward Soup", "Directional DPO",
    "Rewards-in-Context", "Online DPO", "SFT, best of n", "SteerLM, best of n",
}  # fmt: skip
STEERED = (
    "dpa", "reward_soup", "directional_dpo", "online_dpo", "best_of_n_sft", "best_of_n_steerlm"
)  # fmt: skip
#: The most that an iteration of Rewards-in-Context takes of the original responses.
ORIGINALS = 5


@pytest.fixture(scope="module")
def finished(methods_run):
    return methods_run.folder / RESULTS


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_method_has_its_rows(finished):
    rows = read_csv(finished / "evaluation/validation_rewards.csv")
    assert "v_correctness" in rows[0]
    assert "gold_correctness" in rows[0]
    found = {}
    for row in rows:
        found.setdefault((row["method"], row["iteration"]), []).append(int(row["direction_index"]))
    steered, alone = [0, 1, 2], [-1]
    assert found == {
        ("dpa", "0"): steered,
        ("dpa", "1"): steered,
        ("sft", ""): alone,
        ("steerlm", ""): steered,
        ("dpo", ""): alone,
        ("ppo", ""): alone,
        ("rsf", ""): alone,
        ("reward_soup", ""): steered,
        ("directional_dpo", "1"): steered,
        ("ric", "1"): steered,
        ("ric", "2"): steered,
        ("online_dpo", ""): steered,
        ("best_of_n_sft", ""): steered,
        ("best_of_n_steerlm", ""): steered,
    }
    directions = {
        method: [
            [row[f"v_{name}"] for name in ("helpfulness", "verbosity", "correctness")]
            for row in rows
            if row["method"] == method and row["iteration"] != "0"
        ]
        for method in STEERED
    }
    assert all(directions[method] == directions["dpa"] for method in STEERED)


def test_soups_are_deleted_and_pairs_kept(finished):
    assert not list(finished.rglob("reward_soup.*/"))
    assert not list(finished.rglob("checkpoint"))
    experts = sorted(path.name for path in (finished / "rsf").iterdir())
    assert experts == ["0_-100_0", "0_0_100", "100_0_0"]
    pairs = [
        json.loads(line)
        for line in (finished / "directional_dpo/iter1/pairs.jsonl").read_text().splitlines()
    ]
    sidecar = json.loads((finished / "directional_dpo/iter1/pairs.jsonl.meta.json").read_text())
    assert len(pairs) == sidecar["rows"] == sidecar["pairs"]["kept"]
    assert all(pair["margin"] > 0 and len(pair["direction"]) == 3 for pair in pairs)


def test_scalar_methods_are_told_no_direction(finished):
    sampled = (finished / "rsf/100_0_0/iter1/sampled/0.jsonl").read_text().splitlines()
    assert all("direction" not in json.loads(line) for line in sampled)
    selected = (finished / "rsf/100_0_0/iter1/selected.jsonl").read_text().splitlines()
    assert {tuple(json.loads(line)["direction"]) for line in selected} == {(1.0, 0.0, 0.0)}


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rewards_in_context_learns_what_responses_got(finished):
    ranges = read_ranges(finished / "ric/ranges.json")
    originals = read_jsonl(finished / "ric/originals.jsonl")
    assert len(originals) == ORIGINALS
    kept = []
    for t in (1, 2):
        scored = read_jsonl(finished / f"ric/iter{t}/scored/0.jsonl")
        # Each was asked for the best of two of the three objectives.
        best = as_condition(ranges.best)
        assert all(sum(map(eq, row["condition"], best)) >= 2 for row in scored)
        got = {(row["prompt_id"], row["response"]): row["rewards"] for row in scored}
        rows = read_jsonl(finished / f"ric/iter{t}/kept.jsonl")
        assert 0 < len(rows) < len(scored)
        assert all(row["rewards"] == got[row["prompt_id"], row["response"]] for row in rows)
        kept += rows
        sidecar = json.loads((finished / f"ric/iter{t}/policy.meta.json").read_text())
        assert sidecar["rows"] == len(originals) + len(kept)
    for row in read_jsonl(finished / "evaluation/sampled/ric-2.jsonl"):
        assert row["condition"] == desired_rewards(ranges, row["direction"])


def test_best_of_n_chooses_for_each_direction(finished):
    evaluation = finished / "evaluation"
    for policy, count in (("best_of_n_sft", 1), ("best_of_n_steerlm", 3)):
        scored = evaluation / f"candidates/scored_by/reward_model/{policy}.jsonl"
        candidates = [json.loads(line) for line in scored.read_text().splitlines()]
        chosen = evaluation / f"sampled/{policy}.jsonl"
        answers = [json.loads(line) for line in chosen.read_text().splitlines()]
        assert len(answers) == len(candidates) // count  # 3 directions, best of 3
        rewards = {c["response"]: c["rewards"] for c in candidates}
        for answer in answers:
            v, index = answer["direction"], answer["direction_index"]
            among = [
                c for c in candidates
                if c["prompt_id"] == answer["prompt_id"] and c["direction_index"] in (-1, index)
            ]  # fmt: skip
            among = [c for c in among if c["finish_reason"] == "stop"] or among
            best = max(sum(a * b for a, b in zip(v, c["rewards"], strict=True)) for c in among)
            own = sum(a * b for a, b in zip(v, rewards[answer["response"]], strict=True))
            assert own == pytest.approx(best)
    assert all("condition" in answer for answer in answers)  # SteerLM was asked for rewards


def test_tables_and_curves(finished):
    table = {row["method"]: row for row in read_csv(finished / "tables/table1.csv")}
    assert set(table) == LABELS
    assert table["Reward Soup"]["models"] == "3"
    assert table["SFT, best of n"]["samples_per_answer"] == "3"
    assert table["DPA"]["samples_per_answer"] == ""
    assert table["Rewards-in-Context"]["iterations"] == "2"
    assert float(table["DPA"]["tokens_sampled"]) > 0
    assert float(table["PPO (RLOO)"]["tokens_trained"]) > 0
    assert all(float(row["seconds"]) > 0 for row in table.values())
    compared = read_csv(finished / "tables/comparison.csv")
    assert {row["method"] for row in compared} == LABELS - {"DPA"}
    assert {row["by"] for row in compared} == {"r", "gold"}
    history = read_csv(finished / "ppo/100_0_0/history.csv")
    assert len(history) == 24 * 2 // 8
    online = read_csv(finished / "online_dpo/history.csv")
    assert len(online) == 24 * 2 // 8
    assert table["Online DPO"]["responses_sampled"] == str(24 * 2 * 2)
    trained, sampled = (float(table["Online DPO"][f"tokens_{t}"]) for t in ("trained", "sampled"))
    assert 0 < trained <= sampled
    assert (finished / "figures/policy_gradient.svg").stat().st_size > 5000


def test_nothing_is_left_to_do(finished):
    assert planned_jobs(finished.parents[1], *CONFIG) == {}


#: Scripts that load models or hold a key, each of which runs for seconds.
WATCHED = (
    "pretrain_base_model", "train_reward_model", "train_sft", "train_steerlm", "train_dpo",
    "train_ppo", "train_online_dpo", "finetune_policy", "annotate_responses", "sample_responses",
    "score_responses", "sample_evaluation", "sample_soup", "judge_alpacaeval",
)  # fmt: skip


def test_snakemakes_report_shows_the_figures_with_their_captions(methods_run, tmp_path):
    report = tmp_path / "report.zip"
    snakemake(methods_run.folder, "--report", str(report), *CONFIG)
    with zipfile.ZipFile(report) as archive:
        shown = archive.read("report/report.html").decode()
    for name in ("Figure 1", "Figure 4", "Over-optimisation"):
        assert f"{name} (experiment everything)." in shown
    # How docutils says that it cannot read a caption.
    assert "System Message" not in shown
    assert "system-message" not in shown


def test_no_key_is_written_printed_or_on_a_command_line(methods_run):
    files = dict(everything_written(methods_run.folder))
    for part in (".snakemake/log", ".snakemake/metadata", "/logs/", ".meta.json", "judgements/",
                 "report.html", ".safetensors"):  # fmt: skip
        assert any(part in str(path) for path in files), part
    for script in WATCHED:
        assert f"python -m scripts.{script}" in methods_run.printed
        assert any(f"scripts.{script}".encode() in command for command in methods_run.commands), (
            script
        )
    for name, key in CANARIES.items():
        places = [("printed", methods_run.printed.encode()), *files.items()]
        assert carriers(key, places) == [], name
        assert carriers(key, [(c, c) for c in methods_run.commands]) == [], name
    # The judge was given its own key, and it alone.
    assert methods_run.keys == {CANARIES["JUDGE_KEY"]}
