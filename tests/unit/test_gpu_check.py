"""benchmarks.gpu_check on a CPU, small: what it records, and that it notices what is wrong."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.gpu_check import __main__ as check
from benchmarks.gpu_check.pipeline import STAGES, stage_commands
from tests.support.rule_commands import TINY, add_experiment
from tests.support.snakemake_runs import snakemake


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"transformers": "5.18.3"}, "transformers 5.18.3 is too old (>= 5.19)"),
        ({"trl": None, "torch": "2.9.1+cu128"}, "torch 2.9.1+cu128 is too old (>= 2.10)"),
        ({"trl": None}, "trl is missing (>= 1.16)"),
    ],
)
def test_names_every_package_that_is_missing_or_too_old(versions, said, monkeypatch):
    real = check.version

    def version(name):
        if versions.get(name, "") is None:
            raise check.PackageNotFoundError
        return versions.get(name) or real(name)

    monkeypatch.setattr(check, "version", version)
    assert said in check.unmet()
    assert len(check.unmet()) == len(versions)


def test_this_environment_has_what_is_needed():
    assert check.unmet() == []


def test_a_part_over_its_time_ends_and_says_so(monkeypatch):
    monkeypatch.setitem(check.PARTS, "agreement", 1)
    found = check.measured("agreement", True, Path("none"))
    assert found["status"] == "over 1 s"
    assert found["seconds"] < 30


@pytest.fixture
def patience(monkeypatch):
    """Time limits for a CPU that others use as well."""
    monkeypatch.setattr(check, "PARTS", dict.fromkeys(check.PARTS, 900))


@pytest.mark.slow
def test_parts_on_a_cpu(patience, tmp_path):
    """Both sides of `agreement` compute on the same device here: no difference at all."""
    output = tmp_path / "gpu.json"
    parts = ["environment", "kernels", "agreement", "scoring", "training", "sampling"]
    for part in parts:
        found = check.measured(part, True, tmp_path)
        assert found["status"] == ("skipped" if part == "environment" else "ok"), found
        assert not check.any_unmet(found), found
        with output.open("a") as lines:
            print(json.dumps(found), file=lines)
    rows = [row for line in output.read_text().splitlines() for row in json.loads(line)["rows"]]
    same = {row["what"]: row["value"] for row in rows if "difference" in row["what"]}
    assert [name for name, value in same.items() if "score" not in name and value > 1e-6] == [
        "2 prompts x 4 responses: largest difference"  # packed against one at a time
    ]


@pytest.mark.slow
def test_the_run_to_replay_has_every_stage(tmp_path):
    add_experiment(tmp_path, "tiny", TINY, "{methods: [dpa, sft, dpo]}")
    plan = snakemake(tmp_path, "-n", "-p", "--forceall", "--config", "experiment=tiny").stdout
    commands = stage_commands(plan)
    assert commands.keys() == set(STAGES)
    assert "--output" in commands["finetune_policy"]
    with pytest.raises(SystemExit, match="no job of train_sft in the plan"):
        stage_commands(plan.replace("scripts.train_sft", "scripts.train_other"))


@pytest.mark.slow
def test_stages_are_replayed_from_a_run_on_a_cpu(patience, finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder / "results", run / "results")
    scored = finished_run.command("score_responses", "dpa/iter1")
    commands = {
        "score_responses": scored.arguments,
        "train_sft": finished_run.command("train_sft").arguments,
    }
    (run / "commands.json").write_text(json.dumps(commands))
    found = check.measured("pipeline", True, run)
    assert found["status"] == "ok"
    assert not check.any_unmet(found)
    assert [row["what"] for row in found["rows"]] == [
        "train_sft: exit status",
        "train_sft: mean loss, of the CPU's",
        "score_responses: exit status",
        "score_responses: largest difference of a reward",
    ]
    # A run whose rewards are others is noticed.
    output = run / scored.value("--output")
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    for name in lines[0]["attributes"]:
        lines[0]["attributes"][name] += 5
    output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    del commands["train_sft"]
    (run / "commands.json").write_text(json.dumps(commands))
    found = check.measured("pipeline", True, run)
    assert [row["met"] for row in found["rows"]] == [True, False]
