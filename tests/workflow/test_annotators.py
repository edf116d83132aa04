"""Samples rated by people and by another reward model, as Snakemake has it done.

Scored samples of an iteration are given; the jobs that choose among them and have them rated are
real.
"""

import csv
import json
import os
from pathlib import Path

import pytest
import yaml

from dpa.artefacts.jsonl import write_jsonl
from dpa.artefacts.sidecars import read_sidecar
from dpa.records import Prompt, ScoredSample
from dpa.text.prompts import prompt_id
from tests.support.rule_commands import TINY, add_experiment
from tests.support.snakemake_runs import planned_jobs, snakemake
from tests.support.tiny_models import make_chat_reward_model

pytestmark = pytest.mark.slow

#: Two runs, of which each waits for its own ratings.
RUNS = [Path(f"results/tiny/seed{seed}") for seed in (0, 1)]
RATINGS = [run / "feedback/iter1/ratings.jsonl" for run in RUNS]
PROMPTS, SAMPLES = 3, 5
#: As a user's profile may have them; what is given below was made by no job.
OPTIONS = ("--cores", "1", "--keep-going", "--retries", "2", "--rerun-triggers", "mtime")
CONFIG = ("--config", "experiment=tiny")


def add_scored(folder: Path, annotator: dict) -> Path:
    """A clone with two runs whose first iteration is scored, and an annotator."""
    overlay = {
        "seed": [0, 1],
        "shards": 1,
        "methods": ["dpa"],
        "rerun_on_code_change": False,
        "feedback": {"annotator": annotator, "best_per_prompt": 2, "random_per_prompt": 1},
    }
    add_experiment(folder, "tiny", TINY, yaml.safe_dump(overlay))
    prompts, held_out = (
        [Prompt(prompt_id=prompt_id(text), prompt=text, source="test") for text in texts]
        for texts in ([f"Describe otter {i}." for i in range(PROMPTS)], ["Describe the fox."])
    )
    for run in RUNS:
        given = {
            "data/prompts/d1.jsonl": prompts,
            "data/prompts/validation.jsonl": held_out,
            "dpa/iter1/scored/0.jsonl": [
                ScoredSample(
                    prompt_id=prompt.prompt_id, direction_index=0, direction=[1.0, 0.0],
                    sample_index=n, seed=n, response="It swims." * (n + 1), finish_reason="stop",
                    prompt_tokens=3, response_tokens=3, attributes={}, rewards=[10.0 * n, 20.0],
                )
                for prompt in prompts for n in range(SAMPLES)
            ],
        }  # fmt: skip
        for name, rows in given.items():
            path = folder / run / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, rows)
            os.utime(path, (1e9, 1e9))
    return folder


def have_rated(folder: Path, check: bool = True) -> str:
    targets = map(str, RATINGS)
    return snakemake(folder, *OPTIONS, *CONFIG, "--", *targets, check=check).stdout


def rate(folder: Path, run: Path, stars: int) -> Path:
    """What somebody makes of a run's sheet, and a row that was not asked for."""
    with open(folder / run / "feedback/iter1/to_rate.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["ultrafeedback-helpfulness"] = str(stars)
    output = folder / "rated" / run.relative_to("results") / "iter1/mine.csv"
    output.parent.mkdir(parents=True)
    with open(output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*rows, rows[0] | {"response_hash": "0" * 16}])
    return output


def test_a_run_waits_for_people_and_goes_on_with_their_ratings(tmp_path):
    folder = add_scored(tmp_path, {"kind": "file", "path": "rated/{experiment}"})
    output = have_rated(folder, check=False)
    for run in RUNS:  # of both, for other jobs go on
        log = (folder / run / "logs/annotate_feedback/iter1.log").read_text()
        errors = [line for line in log.splitlines() if "error" in line.lower()]
        assert len(errors) == 1, log
        waiting = f"rated/{run.relative_to('results')}/iter1: no ratings yet; rate the 9 responses"
        assert waiting in errors[0]
        assert "ultrafeedback-helpfulness (1 to 5)" in errors[0]
        chosen = (folder / run / "feedback/iter1/to_rate.jsonl").read_text().splitlines()
        assert len(chosen) == PROMPTS * 3
    assert output.count("Error in rule annotate_feedback") == 2, output  # none is tried again
    assert not any((folder / ratings).exists() for ratings in RATINGS)

    rated = rate(folder, RUNS[0], stars=5)
    given = rated.read_bytes()
    have_rated(folder, check=False)
    assert not (folder / RATINGS[1]).exists()
    rows = [json.loads(line) for line in (folder / RATINGS[0]).read_text().splitlines()]
    assert [row["attributes"] for row in rows] == [{"ultrafeedback-helpfulness": 90.0}] * 9
    sidecar = read_sidecar(folder / RATINGS[0])
    assert (sidecar["asked"], sidecar["rated"]) == (9, 9)
    assert sidecar["annotation"]["dropped"] == {"matches no response that was asked for": 1}

    rate(folder, RUNS[1], stars=1)
    have_rated(folder)
    assert planned_jobs(folder, *OPTIONS, *CONFIG, "--", *map(str, RATINGS)) == {}
    assert rated.read_bytes() == given
    assert [path.name for path in rated.parent.iterdir()] == ["mine.csv"]
    # Another rating is another input.
    rated.write_bytes(given.replace(b",5,", b",4,", 1))
    planned = planned_jobs(folder, *OPTIONS, *CONFIG, "--", *map(str, RATINGS))
    assert planned == {"annotate_feedback": 1}


def test_another_reward_model_rates(tmp_path):
    make_chat_reward_model(tmp_path / "rater")
    outputs = {"ultrafeedback-helpfulness": {"output": "quality", "from": [-1000, 1000]}}
    annotator = {"kind": "reward_model", "model": {"path": "rater"}, "outputs": outputs}
    folder = add_scored(tmp_path, annotator)
    have_rated(folder)
    for ratings in RATINGS:
        rows = [json.loads(line) for line in (folder / ratings).read_text().splitlines()]
        assert len(rows) == PROMPTS * 3
        assert {name for row in rows for name in row["attributes"]} == {"ultrafeedback-helpfulness"}
        assert len({row["attributes"]["ultrafeedback-helpfulness"] for row in rows}) > 3
        assert "rater" in read_sidecar(folder / ratings)["inputs"]
    assert planned_jobs(folder, *OPTIONS, *CONFIG, "--", *map(str, RATINGS)) == {}
