"""One file of ratings becomes a steerable model: new_experiment's own YAML, from start to end."""

import csv
import json
import subprocess
import sys

import pytest

from dpa.text.prompts import prompt_id
from tests.support.snakemake_runs import copy_repository, environment, planned_jobs, snakemake
from tests.support.tiny_models import make_chat_tokenizer, make_policy

pytestmark = pytest.mark.slow

#: What a test can wait for; all else is as written.
SMALL = (
    "data={prompts_per_half: 8}",
    "dpa={iterations: 1, directions_per_prompt: 2, responses_per_direction: 2}",
    "sampling={max_truncated_fraction: 1.0, max_new_tokens: 16}",
)
RUN = "results/mine/seed0"


def write_ratings(path):
    """Forty prompts of which two answers have two raters' stars each; better answers are longer."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "answer", "stars", "rater"])
        for i in range(40):
            for better in (False, True):
                answer = f"The otter lives close to river {i}." + " It feeds on roots." * better
                for rater in (0, 1):
                    stars = 1 + 3 * better + rater
                    rows.writerow([f"Where does otter {i} live?", answer, stars, rater])


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_file_becomes_a_steerable_model(tmp_path):
    folder = copy_repository(tmp_path)
    make_policy(folder / "chat", make_chat_tokenizer())
    write_ratings(folder / "mine.csv")
    made = subprocess.run(
        [sys.executable, "-m", "scripts.new_experiment", "--ratings", "mine.csv", "--policy",
         "chat", "--output", "mine"],
        cwd=folder, env=environment(), text=True, capture_output=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "merged: 80" in made.stderr
    assert "18 prompts a half, 3 iterations" in made.stderr
    given = ("--config", "experiment=mine/mine.yaml", *SMALL, "--", "dpa", "reward_model")
    snakemake(folder, "--cores", "2", *given)
    assert planned_jobs(folder, *given) == {}
    steering = json.loads((folder / RUN / "dpa/iter1/policy/steering.json").read_text())
    assert steering["takes"] == "direction"
    assert [o["name"] for o in steering["objectives"]] == ["stars", "verbosity"]
    learnt = {row["prompt_id"] for row in read(folder / RUN / "dpa/iter1/selected.jsonl")}
    held_out = {row["prompt"] for row in read(folder / "mine/validation.jsonl")}
    assert len(held_out) == 4
    assert learnt.isdisjoint(map(prompt_id, held_out))
    with open(folder / RUN / "reward_model/metrics.csv") as file:
        assert [row["attribute"] for row in csv.DictReader(file)] == ["stars", "length"]
