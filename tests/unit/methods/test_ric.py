"""Rewards-in-Context: what it asks for, and what its iterations learn from, by hand."""

import json

import numpy as np
import pytest

from dpa.artefacts.jsonl import write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.conditions import RewardRanges, desired_rewards, draw_desired_rewards, read_ranges
from dpa.errors import InputError
from dpa.methods import ric
from dpa.methods.best_of_n import Truncated
from dpa.records import Annotation, Prompt, ScoredSample

ARC = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
#: Of verbosity less is wanted.
RANGES = RewardRanges(worst=[10.0, 80.0], best=[90.0, 20.0])


def annotation(number, rewards, prompt="p0"):
    return Annotation(
        prompt_id=prompt, prompt="?", response=f"original {number}", attributes={"a": 1.0},
        rewards=rewards, split="train",
    )  # fmt: skip


def sample(number, rewards, prompt="p0", reason="stop"):
    return ScoredSample(
        prompt_id=prompt, direction_index=-1, condition=[90, 20], sample_index=number, seed=number,
        response=f"sampled {number}", finish_reason=reason, prompt_tokens=3, response_tokens=5,
        attributes={"a": 1.0}, rewards=rewards,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        # Shares 1 and 0: the best of the one, the worst of the other.
        ([1.0, 0.0], [90, 80]),
        ([0.0, -1.0], [10, 20]),
        # 0.8 / 1.4: verbosity goes 2 * 0.6 / 1.4 = 0.857 of the way from 80 to 20.
        ([0.8, -0.6], [90, 29]),
        # Equal shares: the best of both.
        ([0.7071, -0.7071], [90, 20]),
        # Outside of the arc verbosity's ends change places: 0.857 of the way from 20 to 80.
        ([0.8, 0.6], [90, 71]),
    ],
)
def test_desired_rewards_of_a_direction(direction, expected):
    assert desired_rewards(RANGES, direction) == expected


def test_desired_rewards_of_three_objectives():
    ranges = RewardRanges(worst=[0.0, 0.0, 0.0], best=[100.0, 100.0, 100.0])
    # Shares 0.6, 0.3, 0.1: three times the second's is 0.9, the third's 0.3.
    direction = (np.array([6.0, 3.0, 1.0]) / np.sqrt(46)).tolist()
    assert desired_rewards(ranges, direction) == [100, 90, 30]


def test_training_samples_are_asked_for_the_best_of_all_objectives_but_one():
    drawn = np.array([draw_desired_rewards(RANGES, 0, 1, "p0", i) for i in range(2000)])
    first, second = drawn[:, 0] == 90, drawn[:, 1] == 20
    assert (first | second).all()
    assert drawn[~first, 0].min() < 12  # of the one left, down to its worst
    assert drawn[~second, 1].max() > 78
    assert 0.45 < second.mean() < 0.55
    # The lesser of two uniform draws is a third of the way on average: 10 + 80 / 3.
    assert drawn[~first, 0].mean() == pytest.approx(36.7, abs=2)
    assert draw_desired_rewards(RANGES, 0, 1, "p0", 5) == drawn[5].tolist()
    again = [draw_desired_rewards(RANGES, 0, 2, "p0", i) for i in range(20)]
    assert again != drawn[:20].tolist()


def test_ranges_are_from_the_worst_to_the_best():
    rewards = np.array([[10.0, 50.0], [70.0, 5.0], [40.0, 95.0]])
    assert ric.signs_of(ARC).tolist() == [1, -1]
    assert ric.reward_ranges(rewards, ric.signs_of(ARC)) == RewardRanges(
        worst=[10.0, 95.0], best=[70.0, 5.0]
    )


def test_a_response_stays_that_is_good_at_something():
    # 80 % quantiles of five values are the fourth and a fifth of the way on: 42 and, of verbosity's
    # negatives, -19.
    rewards = np.array([[50.0, 90.0], [40.0, 15.0], [30.0, 50.0], [20.0, 60.0], [10.0, 20.0]])
    signs = np.array([1, -1])
    kept = ric.good_at_something(rewards, signs, 0.8)
    assert kept.tolist() == [True, True, False, False, False]
    assert ric.good_at_something(rewards, signs, 0.0).all()
    # Equal rewards are all as good as the quantile.
    assert ric.good_at_something(np.ones((3, 2)), signs, 0.9).all()


def test_no_more_originals_than_asked_for():
    good = np.array([True, False, True, True, False, True])
    drawn = ric.at_most(good, 2, seed=0)
    assert drawn.sum() == 2
    assert not (drawn & ~good).any()
    assert ric.at_most(good, 10, seed=0).tolist() == good.tolist()


def test_samples_take_the_rewards_that_they_got(tmp_path):
    file = tmp_path / "0.jsonl"
    write_jsonl(
        file,
        [
            sample(0, [30.0, 40.0]),
            sample(1, [99.0, 0.0], reason="length"),
            sample(0, [50.0, 60.0], "p1", "length"),
        ],
    )
    prompts = [Prompt(prompt_id=f"p{i}", prompt=f"{i}?", source="s") for i in range(2)]
    counts, truncated = RowCounts(), Truncated()
    rows = list(ric.relabelled_samples([file], prompts, 1, counts, truncated))
    # Of p1 all are truncated.
    assert [(row.prompt, row.response, row.rewards) for row in rows] == [
        ("0?", "sampled 0", [30.0, 40.0]), ("1?", "sampled 0", [50.0, 60.0])
    ]  # fmt: skip
    assert (counts.read, counts.dropped) == (3, {"truncated": 1})
    kept = list(ric.keep(rows, np.array([False, True]), "good at nothing", counts))
    assert [row.rewards for row in kept] == [[50.0, 60.0]]
    assert counts.dropped["good at nothing"] == 1


def test_members_are_averaged(tmp_path):
    files = [tmp_path / f"{m}.jsonl" for m in range(2)]
    for file, first in zip(files, (20.0, 40.0), strict=True):
        write_jsonl(file, [annotation(0, [first, 50.0]), annotation(1, [0.0, 0.0], "other")])
    counts = RowCounts()
    rows = list(ric.annotated_originals(files, 2, {"p0"}, counts))
    assert [row.rewards for row in rows] == [[30.0, 50.0]]
    assert (counts.read, counts.dropped) == (2, {"to other prompts": 1})
    with pytest.raises(InputError, match="no responses to these prompts"):
        ric.rewards_of(ric.annotated_originals(files, 2, {"none"}, counts))


@pytest.mark.parametrize("content", [{"worst": [1.0]}, {"worst": [1.0], "best": []}, [1, 2]])
def test_broken_ranges_are_named(tmp_path, content):
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"ranges\.json: .*; rerun prepare_ric"):
        read_ranges(path)
