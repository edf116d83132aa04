"""The validation table, the metrics on it, and the facts; numbers worked by hand."""

import re

import msgspec
import numpy as np
import pandas as pd
import pytest

from dpa.artefacts.jsonl import write_jsonl
from dpa.config.load import load_config
from dpa.config.steering import ObjectiveConfig, PenaltyConfig
from dpa.directions import evaluation_directions
from dpa.errors import InputError
from dpa.evaluation.bootstrap import read_prompt_rewards
from dpa.evaluation.metrics import (
    best_scalar_rewards,
    hypervolume,
    spearman,
    steered_scalar_rewards,
)
from dpa.evaluation.quickstart_claims import describe_gold, front_claims, reward_model_claims
from dpa.evaluation.validation import (
    SELECTOR,
    Policy,
    front,
    front_hypervolume,
    gold_scorer,
    mean_scalar_reward,
    prompt_rewards,
    read_validation_rewards,
    validation_rewards,
)
from dpa.generation.sample import grid_of
from dpa.quickstart.world import gold_rewards
from dpa.records import Prompt, ScoredSample

OBJECTIVES = ["helpfulness", "verbosity"]
LAW = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}


def test_hypervolume_by_hand():
    # Gains over (0, 100): (0.8, 0.6) and (0.5, 0.9). Union: 0.48 + 0.5 * 0.3 = 0.63.
    points = np.array([[80.0, 40.0], [50.0, 10.0]])
    assert hypervolume(points, np.array([0.0, 100.0])) == pytest.approx(63.0)
    assert hypervolume(points[:1], np.array([0.0, 100.0])) == pytest.approx(48.0)
    # From (60, 80): gains (0.5, 0.5) of a box 40 x 80; the other point is not above it.
    assert hypervolume(points, np.array([0.0, 80.0])) == pytest.approx(
        100 * (0.8 * 0.5 + 0.5 * (0.875 - 0.5))
    )


def test_points_outside_the_box_are_clipped():
    assert hypervolume(np.array([[110.0, -5.0]]), np.array([0.0, 100.0])) == pytest.approx(100)
    assert hypervolume(np.array([[-3.0, 50.0]]), np.array([0.0, 100.0])) == pytest.approx(0)


def test_scalar_rewards_by_hand():
    directions = np.array([[1.0, 0.0], [0.8, -0.6]])
    points = np.array([[80.0, 60.0], [70.0, 30.0]])
    assert steered_scalar_rewards(points, directions) == pytest.approx([80.0, 38.0])
    assert best_scalar_rewards(points, directions) == pytest.approx([80.0, 38.0])
    one = np.array([[75.0, 50.0]])
    assert best_scalar_rewards(one, directions) == pytest.approx([75.0, 30.0])
    assert mean_scalar_reward(points[::-1], directions, steered=True) == pytest.approx(
        (70 + 28) / 2
    )
    assert mean_scalar_reward(points[::-1], directions, steered=False) == pytest.approx(59.0)


def test_spearman_by_hand():
    assert spearman(np.arange(4), np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)


def test_policy_names():
    assert Policy.parse("dpa-3") == ("dpa", 3)
    assert Policy.parse("sft") == ("sft", None)


def test_grids(tmp_path):
    grid = grid_of(LAW, 10, None, 2, 5)
    assert [s.direction for s in grid] == evaluation_directions(LAW, 10)
    assert grid[0].direction == [1.0, 0.0]
    assert grid[-1].direction == pytest.approx([0.707107, -0.707107])
    assert {s.samples for s in grid} == {2}
    (tmp_path / "c.json").write_text('{"targets": [[1, 2]], "curve": [[60, 20], [80, 50]]}')
    grid = grid_of(None, 2, tmp_path / "c.json", 3, 5)
    assert [(s.direction_index, s.condition) for s in grid] == [(0, [60, 20]), (1, [80, 50])]
    grid = grid_of(LAW, 2, tmp_path / "c.json", 3, 5)
    assert [s.direction for s in grid] == evaluation_directions(LAW, 2)
    assert [s.condition for s in grid] == [[1, 2], [1, 2]]  # the only target
    [nothing] = grid_of(None, 10, None, 1, 5)
    assert (nothing.direction_index, nothing.direction, nothing.condition) == (-1, None, None)


def test_directions_outside_of_the_trained_ones_are_told_apart(tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", [Prompt(prompt_id="a", prompt="x", source="t")])
    asked = [[1.0, 0.0], [0.8, -0.6], [0.0, -1.0]]
    write_jsonl(
        tmp_path / "dpa-1.jsonl",
        [scored("a", i, v, [80.0 - i, 40.0 - i]) for i, v in enumerate(asked)],
    )
    objectives = [ObjectiveConfig(name=name, outputs={name: 1.0}) for name in OBJECTIVES]
    files = [tmp_path / "dpa-1.jsonl"], tmp_path / "prompts.jsonl"
    rewards = prompt_rewards(*files, objectives, 0, None, trained_directions=2)
    assert rewards["outside"].tolist() == [False, False, True]
    table = validation_rewards(rewards, OBJECTIVES)
    assert table["outside"].tolist() == [False, False, True]
    assert front(table, "dpa", 1, OBJECTIVES, "r").tolist() == [[80, 40], [79, 39]]
    rewards.to_parquet(tmp_path / "rewards.parquet")
    found = [
        read_prompt_rewards(tmp_path / "rewards.parquet", OBJECTIVES, outside=o) for o in (0, 1)
    ]
    assert [len(rows) for rows in found] == [2, 3]
    assert "outside" not in prompt_rewards(*files, objectives, 0, None)


def scored(prompt_id, index, direction, rewards, tokens=10):
    return ScoredSample(
        prompt_id=prompt_id, direction_index=index, direction=direction, sample_index=0, seed=1,
        response="x", finish_reason="stop", prompt_tokens=1, response_tokens=tokens,
        attributes={}, rewards=rewards,
    )  # fmt: skip


def test_collect_means_by_hand(tmp_path):
    write_jsonl(
        tmp_path / "prompts.jsonl",
        [Prompt(prompt_id=i, prompt=f"text {i}", source="t") for i in "ab"],
    )
    write_jsonl(
        tmp_path / "dpa-1.jsonl",
        [
            scored("a", 0, [1.0, 0.0], [80.0, 40.0], 10),
            scored("a", 1, [0.8, -0.6], [60.0, 20.0], 4),
            scored("b", 0, [1.0, 0.0], [90.0, 60.0], 20),
            scored("b", 1, [0.8, -0.6], [50.0, 30.0], 6),
        ],
    )
    write_jsonl(tmp_path / "sft.jsonl", [scored("a", -1, None, [50.0, 50.0])])
    rewards = prompt_rewards(
        [tmp_path / "dpa-1.jsonl", tmp_path / "sft.jsonl"],
        tmp_path / "prompts.jsonl",
        [ObjectiveConfig(name=name, outputs={name: 1.0}) for name in OBJECTIVES],
        7,
        gold=lambda prompt, response: (len(prompt), 1.0),
    )
    assert rewards[["direction_index", "prompt_id", "r_helpfulness"]].to_numpy().tolist() == [
        [0, "a", 80.0], [0, "b", 90.0], [1, "a", 60.0], [1, "b", 50.0], [-1, "a", 50.0],
    ]  # fmt: skip
    assert rewards["c_helpfulness"].isna().all()
    table = validation_rewards(rewards, OBJECTIVES)
    table.to_csv(tmp_path / "t.csv", index=False)
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "method,iteration,seed,direction_index,v_helpfulness,v_verbosity,r_helpfulness,"
        "r_verbosity,gold_helpfulness,gold_verbosity,mean_tokens,n",
        "dpa,1,7,0,1.0,0.0,85.0,50.0,6.0,1.0,15.0,2",
        "dpa,1,7,1,0.8,-0.6,55.0,25.0,6.0,1.0,5.0,2",
        "sft,,7,-1,,,50.0,50.0,6.0,1.0,10.0,1",
    ]
    again = read_validation_rewards(tmp_path / "t.csv")
    assert front(again, "dpa", 1, OBJECTIVES, "r").tolist() == [[85.0, 50.0], [55.0, 25.0]]
    assert len(front(again, "dpa", 2, OBJECTIVES, "r")) == 0
    assert front(again, "sft", None, OBJECTIVES, "gold").tolist() == [[6.0, 1.0]]


def test_unseen_prompts_have_columns_of_their_own(tmp_path):
    write_jsonl(
        tmp_path / "prompts.jsonl",
        [
            Prompt(prompt_id="a", prompt="prompt a", source="t", cluster="otter"),
            Prompt(prompt_id="b", prompt="prompt b", source="t"),
            Prompt(prompt_id="c", prompt="longer prompt c", source="t", unseen=True),
        ],
    )
    answers = [scored(i, -1, None, [r, r], 10) for i, r in (("a", 50.0), ("b", 60.0), ("c", 10.0))]
    files = [tmp_path / "sft.jsonl", tmp_path / "dpo.jsonl"]
    write_jsonl(files[0], answers)
    write_jsonl(files[1], answers[:2])
    tables = []
    for paths in (files, files[1:]):
        rewards = prompt_rewards(
            paths,
            tmp_path / "prompts.jsonl",
            [ObjectiveConfig(name=name, outputs={name: 1.0}) for name in OBJECTIVES],
            7,
            gold=lambda prompt, response: (len(prompt), 1.0),
        )
        tables.append(validation_rewards(rewards, OBJECTIVES))
    assert rewards["cluster"].tolist() == ["otter", "b"]
    sft, dpo = tables[0].to_dict("records")
    assert (sft["r_helpfulness"], sft["gold_helpfulness"], sft["n"]) == (55.0, 8.0, 2)
    assert (sft["unseen_r_helpfulness"], sft["unseen_gold_helpfulness"]) == (10.0, 15.0)
    assert (sft["unseen_n"], np.isnan(dpo["unseen_n"])) == (1, True)
    assert not [column for column in tables[1] if column.startswith("unseen")]
    front_of_sft = front(tables[0], "sft", None, OBJECTIVES, "r")
    assert front_of_sft.tolist() == front(tables[1], "dpo", None, OBJECTIVES, "r").tolist()


def test_the_judge_stands_beside(tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", [Prompt(prompt_id="a", prompt="text", source="t")])
    ours, judged = tmp_path / "sft.jsonl", tmp_path / "judge" / "sft.jsonl"
    judged.parent.mkdir()
    write_jsonl(ours, [scored("a", -1, None, [50.0, 40.0])])
    write_jsonl(judged, [scored("a", -1, None, [30.0, 20.0])])
    objectives = [ObjectiveConfig(name=name, outputs={name: 1.0}) for name in OBJECTIVES]

    def collect(judged):
        return prompt_rewards([ours], tmp_path / "prompts.jsonl", objectives, 7, None, judged)

    table = validation_rewards(collect([judged]), OBJECTIVES)
    assert list(table.columns[6:10]) == [
        "r_helpfulness", "r_verbosity", "judge_helpfulness", "judge_verbosity"
    ]  # fmt: skip
    assert front(table, "sft", None, OBJECTIVES, "judge").tolist() == [[30.0, 20.0]]
    # Its scores must be of the very responses, and of the very policies.
    write_jsonl(judged, [msgspec.structs.replace(scored("a", -1, None, [1.0, 1.0]), response="y")])
    with pytest.raises(InputError, match=r"of other samples than .*; rerun score_evaluation"):
        collect([judged])
    with pytest.raises(InputError, match="--judged: give the judge's file of each policy"):
        collect([ours, judged])


@pytest.mark.parametrize(
    ("pessimism", "expected"),
    # v.r by the two is 56 - 24 = 32 and 64 - 6 = 58.
    [("none", 45.0), ("min", 32.0), (PenaltyConfig(penalty=0.5), 45 - 13 / 2)],
)
def test_what_selection_maximised_stands_beside(tmp_path, pessimism, expected):
    write_jsonl(tmp_path / "prompts.jsonl", [Prompt(prompt_id="a", prompt="text", source="t")])
    objectives = [ObjectiveConfig(name=name, outputs={name: 1.0}) for name in OBJECTIVES]
    given = {
        "ours/dpa-2": (0, [0.8, -0.6], [50.0, 50.0]),
        "ours/sft": (-1, None, [50.0, 50.0]),
        "selector/dpa-2": (0, [0.8, -0.6], [70.0, 40.0]),
        "selector/member1/dpa-2": (0, [0.8, -0.6], [80.0, 10.0]),
    }
    files = {name: tmp_path / f"{name}.jsonl" for name in given}
    for name, (index, direction, rewards) in given.items():
        files[name].parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(files[name], [scored("a", index, direction, rewards)])
    ours = [path for name, path in files.items() if name.startswith("ours")]
    selectors = [path for name, path in files.items() if name.startswith("selector")]

    def collect(selectors):
        prompts = tmp_path / "prompts.jsonl"
        return prompt_rewards(
            ours, prompts, objectives, 7, None, selectors=selectors, pessimism=pessimism
        )

    rewards = collect(selectors)
    assert rewards[SELECTOR].tolist() == pytest.approx([expected, np.nan], nan_ok=True)
    table = validation_rewards(rewards, OBJECTIVES)
    assert table[SELECTOR].tolist() == pytest.approx([expected, np.nan], nan_ok=True)
    assert SELECTOR not in validation_rewards(collect([]), OBJECTIVES)
    write_jsonl(selectors[0], [scored("b", 0, [0.8, -0.6], [70.0, 40.0])])
    with pytest.raises(InputError, match=r"of other samples than .*; rerun score_evaluation"):
        collect(selectors)


def test_gold_rewards_are_the_objectives_of_the_gold_scores():
    gold = gold_scorer("quickstart", load_config().objectives)
    prompt, response = "Describe the otter.", "The otter is found in rivers."
    assert gold(prompt, response) == pytest.approx(gold_rewards(prompt, response), abs=1e-3)
    assert gold_scorer(None, load_config().objectives) is None


def test_several_seeds_give_the_mean_front():
    table = pd.concat([make_table(), make_table().assign(seed=1, r_verbosity=10.0)])
    points = front(table, "dpa", 1, OBJECTIVES, "r")
    assert len(points) == 10
    assert points[0].tolist() == [75.0, 35.0]  # verbosity 60 and 10


def test_a_broken_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv"):
        read_validation_rewards(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_text("method,iteration\nsft,\n")
    with pytest.raises(InputError, match="no column"):
        read_validation_rewards(tmp_path / "t.csv")


def make_table(gain=5.0):
    """Fronts that move up by `gain` each iteration, and a SteerLM, SFT and DPO far below."""
    rows = []
    for t in range(4):
        for i, v in enumerate(evaluation_directions(LAW, 10)):
            start = 70 if t else 40
            point = {"helpfulness": start - 2 * i + gain * t, "verbosity": 60 - 3 * i}
            rows.append({"method": "dpa", "iteration": t, "direction_index": i, "v": v, **point})
    for method, low in (("steerlm", 40), ("sft", 35), ("dpo", 45)):
        rows.append(
            {"method": method, "iteration": None, "direction_index": -1, "v": [None, None],
             "helpfulness": low, "verbosity": 60}
        )  # fmt: skip
    table = pd.DataFrame(
        {
            "method": row["method"], "iteration": row["iteration"], "seed": 0,
            "direction_index": row["direction_index"], "v_helpfulness": row["v"][0],
            "v_verbosity": row["v"][1], "mean_tokens": 9.0, "n": 1,
            **{f"{by}_{name}": float(row[name]) for by in ("r", "gold") for name in OBJECTIVES},
        }
        for row in rows
    )  # fmt: skip
    return table.astype({"iteration": "Int64"})


def test_facts_hold_on_a_good_run_and_fail_on_a_flat_one():
    good = list(front_claims(make_table(), [0.0, 100.0]))
    assert [fact.name for fact in good if not fact.holds] == []
    assert len(good) == 17
    flat = {fact.name: fact.holds for fact in front_claims(make_table(0.0), [0.0, 100.0])}
    assert not flat["hypervolume by gold, t=2 minus t=1"]
    assert not flat["mean v.r, t=3 minus t=2"]
    assert flat["Spearman(direction, verbosity), t=2"]


def test_gold_may_fall_after_the_second_iteration_but_not_without_end():
    def by_gold(*change):
        table = make_table()
        for t, points in enumerate(change, 1):
            table.loc[table["iteration"] == t, "gold_helpfulness"] += points
        facts = {fact.name: fact.holds for fact in front_claims(table, [0.0, 100.0])}
        return facts, describe_gold(table)

    facts, described = by_gold(3, 3, -3)
    assert facts["mean v.r by gold, t=3"]
    assert facts["hypervolume by gold, minus steerlm, t=3"]
    assert re.fullmatch(r"gold v\.r: \d\d\.\d, \d\d\.\d, \d\d\.\d: falls after t=2", described)
    facts, described = by_gold(0, 0, -85)
    assert not facts["mean v.r by gold, t=3"]
    assert not facts["hypervolume by gold, minus steerlm, t=3"]
    # What falls and rises again above all before has not fallen in the end.
    assert by_gold(0, -7, 9)[1].endswith(": does not fall")
    assert by_gold(20, 0, 0)[1].endswith(": falls after t=1")


def test_facts_of_a_reward_model():
    gold = np.array([[10.0, 5.0], [50.0, 20.0], [90.0, 70.0], [30.0, 90.0]])
    assert all(fact.holds for fact in reward_model_claims(gold + 1.0, gold))
    shuffled = gold[[1, 0, 3, 2]]
    assert not any(fact.holds for fact in reward_model_claims(shuffled, gold))


def test_front_hypervolume_grows_with_the_front():
    table = make_table()
    volumes = [
        front_hypervolume(front(table, "dpa", t, OBJECTIVES, "r"), [0.0, 100.0]) for t in range(4)
    ]
    assert volumes == sorted(volumes)
