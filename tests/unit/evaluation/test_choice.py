"""The judge's choice of an iteration, on rewards made by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dpa.errors import InputError
from dpa.evaluation.choice import choose_iteration, choosing_half, chosen_rows
from dpa.report.chosen import chosen_table
from scripts import choose_iteration as script
from scripts import make_chosen

OBJECTIVES, REFERENCE = ["helpfulness", "verbosity"], [0.0, 100.0]
PROMPTS = [f"{i:016x}" for i in range(40)]


def rewards(judged, noise=1.0):
    """Prompt rewards of iterations 0, 1, ...: the reward model's rise, the judge's are given."""
    draw = np.random.default_rng(1)
    rows = []
    for t, judge in enumerate(judged):
        for prompt in PROMPTS:
            for index, v in enumerate([(1.0, 0.0), (0.8, -0.6)]):
                row = {"method": "dpa", "iteration": t, "seed": 3, "direction_index": index}
                row |= {"prompt_id": prompt, "tokens": 1.0, "n": 1}
                row |= {"cluster": prompt, "unseen": False}
                for name, weight in zip(OBJECTIVES, v, strict=True):
                    base = 0.0 if name == "helpfulness" else 50.0
                    gain = 1 if name == "helpfulness" else 0
                    row |= {
                        f"v_{name}": weight,
                        f"c_{name}": None,
                        f"r_{name}": base + 20 * t * gain,
                    }
                    row[f"judge_{name}"] = base + judge * gain + noise * draw.normal()
                rows.append(row)
    table = pd.DataFrame(rows).astype({"iteration": "Int64"})
    return table.astype({f"c_{name}": float for name in OBJECTIVES})


def choose(*judged, **options):
    return choose_iteration(rewards(judged, **options), OBJECTIVES, REFERENCE)


def test_the_last_is_taken_where_none_falls():
    choice = choose(0, 40, 60, 70)
    assert (choice.iteration, choice.fell) == (3, None)
    # Gains over (0, 100): 0.4 x 0.5, ...
    assert [choice.hypervolume[t].value for t in (1, 2, 3)] == pytest.approx([20, 30, 35], abs=1)


def test_it_stops_at_the_first_fall():
    """And does not see that a later one would be better."""
    choice = choose(0, 40, 60, 50, 90)
    assert (choice.iteration, choice.fell) == (2, 3)
    assert set(choice.hypervolume) == {1, 2, 3}


def test_a_fall_within_its_interval_is_none():
    choice = choose(0, 60, 59.9, 59.9, noise=15.0)
    assert (choice.iteration, choice.fell) == (3, None)


def test_iteration_0_is_never_chosen():
    assert choose(90, 40, 30).iteration == 1
    with pytest.raises(InputError, match="no iteration of dpa to choose from"):
        choose(90)


def test_halves_are_seeded_and_disjoint():
    first, second = choosing_half(PROMPTS, 3)
    assert len(first) == len(second) == 20
    assert sorted([*first, *second]) == PROMPTS
    assert choosing_half(PROMPTS[::-1], 3) == (first, second)
    assert choosing_half(PROMPTS, 4)[0] != first


def test_the_other_half_is_what_is_reported():
    table = rewards([0, 40, 60, 50])
    chose, others = choosing_half(PROMPTS, 3)
    spoilt = table.copy()
    spoilt.loc[spoilt["prompt_id"].isin(chose), "judge_helpfulness"] = 0.0
    rows = chosen_rows(spoilt, 2, OBJECTIVES, REFERENCE)
    assert rows == chosen_rows(table, 2, OBJECTIVES, REFERENCE)
    assert {row["prompts"] for row in rows} == {len(others)}
    found = {(row["which"], row["measure"], row["by"]): row["value"] for row in rows}
    assert found["chosen by the judge", "hypervolume", "judge"] == pytest.approx(30, abs=1)
    assert found["last", "hypervolume", "judge"] == pytest.approx(25, abs=1)
    assert found["last", "hypervolume", "r"] > found["chosen by the judge", "hypervolume", "r"]
    shown = chosen_table(pd.DataFrame(rows))
    assert shown.header[3:5] == ["hypervolume (reward model)", "mean v·r (reward model)"]
    assert [row[:3] for row in shown.rows] == [
        ["3", "chosen by the judge", "2"],
        ["3", "last", "3"],
    ]


def test_the_commands(tmp_path):
    table = rewards([0, 40, 60, 50])
    table.to_parquet(tmp_path / "prompt_rewards.parquet", index=False)
    for t in range(4):
        (tmp_path / f"dpa/iter{t}/policy").mkdir(parents=True)
        (tmp_path / f"dpa/iter{t}/policy/config.json").write_text(f"{t}")
        (tmp_path / f"dpa/iter{t}/policy/.snakemake_timestamp").touch()
    shared = ["--prompt-rewards", tmp_path / "prompt_rewards.parquet",
              "--objective-names", "helpfulness,verbosity",
              "--hypervolume-reference", "0,100"]  # fmt: skip
    chosen, policy = tmp_path / "dpa/chosen.json", tmp_path / "dpa/chosen/policy"
    outputs = ["--output", chosen, "--output-policy", policy]
    for t in (1, 2, 3):
        outputs += ["--candidate", tmp_path / f"dpa/iter{t}/policy"]
    result = CliRunner().invoke(script.app, [str(part) for part in [*shared, *outputs]])
    assert result.exit_code == 0, result.output
    record = json.loads(chosen.read_text())
    assert (record["iteration"], record["fell"]) == (2, 3)
    assert (policy / "config.json").read_text() == "2"
    # Which Snakemake touches: a stamp shared with the candidate would rerun what was made from it.
    assert not (policy / ".snakemake_timestamp").exists()
    written = [*shared, "--chosen", chosen, "--output-tables", tmp_path / "tables"]
    result = CliRunner().invoke(make_chosen.app, [str(part) for part in written])
    assert result.exit_code == 0, result.output
    assert "chosen by the judge" in (tmp_path / "tables/chosen.md").read_text()
