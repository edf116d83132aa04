"""Preference pairs, from ratings and from a policy's samples."""

import pytest

from dpa.artefacts.jsonl import write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.methods.best_of_n import SelectionPlan, Truncated
from dpa.methods.preference_pairs import as_conversations, rating_pairs, sampled_pairs
from dpa.records import Pair, Prompt, Rating, ScoredSample


def rating(prompt, response, dataset="uf", **attributes):
    return Rating(
        prompt_id=prompt, prompt=prompt, response=response, attributes=attributes, dataset=dataset,
        split="train",
    )  # fmt: skip


def test_pairs_by_hand(tmp_path):
    path = tmp_path / "ratings.jsonl"
    write_jsonl(
        path,
        [
            rating("p", "good", a=90.0, b=70.0),
            rating("p", "tied", a=80.0, b=80.0),
            rating("p", "bad", a=10.0),
            rating("p", "other scale", dataset="hs", c=100.0),
            rating("q", "one", a=50.0),
            rating("q", "two", a=50.0),
            rating("unwanted", "x", a=1.0),
        ],
    )
    row_counts = RowCounts()
    pairs = list(rating_pairs(path, "uf", {"p", "q", "unrated"}, 0, row_counts))
    # Mean ratings of 80 (the first of the tied) and of 10; by what both have, 90 against 10.
    assert pairs == [
        Pair(prompt_id="p", prompt="p", direction=None, chosen="good", rejected="bad", margin=80.0)
    ]
    assert (row_counts.read, row_counts.dropped) == (
        3,
        {"no two different ratings": 1, "no ratings": 1},
    )


def test_ratings_are_compared_by_the_attributes_that_both_have(tmp_path):
    path = tmp_path / "ratings.jsonl"
    overall = {"ultrafeedback-overall_score": 0.0}
    write_jsonl(
        path,
        [
            # By overall_score the second would be better; by all of its ratings, too.
            rating("p", "good", a=60.0, b=20.0, **overall),
            rating("p", "bad", **{"a": 50.0, "ultrafeedback-overall_score": 100.0}),
            # No attribute in common.
            rating("q", "one", a=60.0),
            rating("q", "two", b=20.0),
            rating("r", "only overall", **overall),
            rating("r", "more", **{"ultrafeedback-overall_score": 100.0}),
        ],
    )
    row_counts = RowCounts()
    pairs = list(rating_pairs(path, "uf", {"p", "q", "r"}, 0, row_counts))
    found = [(pair.prompt_id, pair.chosen, pair.rejected, pair.margin) for pair in pairs]
    assert found == [("p", "good", "bad", 10.0)]
    assert row_counts.dropped == {"no two different ratings": 2}


def test_the_rejected_one_is_a_seeded_choice(tmp_path):
    path = tmp_path / "ratings.jsonl"
    write_jsonl(path, [rating(f"p{i}", f"{j}", a=float(j)) for i in range(40) for j in range(4)])
    wanted = {f"p{i}" for i in range(40)}
    first = list(rating_pairs(path, "uf", wanted, 0, RowCounts()))
    assert first == list(rating_pairs(path, "uf", wanted, 0, RowCounts()))
    assert {pair.chosen for pair in first} == {"3"}
    assert {pair.rejected for pair in first} == {"0", "1", "2"}
    assert first != list(rating_pairs(path, "uf", wanted, 1, RowCounts()))


LAW = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
PLAN = SelectionPlan(LAW, 0, 2, directions_per_prompt=2, responses_per_direction=4)


def sampled(direction, sample, rewards, finish_reason="stop"):
    return ScoredSample(
        prompt_id="p", direction_index=direction, direction=PLAN.direction("p", direction),
        sample_index=sample, seed=1, response=f"{direction}/{sample}",
        finish_reason=finish_reason, prompt_tokens=1, response_tokens=1, attributes={},
        rewards=rewards,
    )  # fmt: skip


def test_best_and_worst_of_each_direction_become_a_pair(tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", [Prompt(prompt_id="p", prompt="text", source="t")])
    v = PLAN.direction("p", 0)
    # Verbosity 0: helpfulness decides whatever the direction; the second best comes twice.
    first = [sampled(0, 0, [50.0, 0.0]), sampled(0, 1, [90.0, 0.0]), sampled(0, 2, [10.0, 0.0])]
    # No pair with one that was truncated, though it is the worst, where others are not.
    first.append(sampled(0, 3, [0.0, 0.0], "length"))
    equal = [sampled(1, i, [40.0, 20.0], "length") for i in range(4)]
    write_jsonl(tmp_path / "0.jsonl", first + equal)
    row_counts, paired, truncated = RowCounts(), RowCounts(), Truncated()
    [pair] = sampled_pairs(
        [tmp_path / "0.jsonl"], tmp_path / "prompts.jsonl", PLAN, row_counts, paired, truncated
    )
    assert (pair.chosen, pair.rejected, pair.direction) == ("0/1", "0/2", v)
    assert pair.margin == pytest.approx(v[0] * 80, abs=1e-5)
    assert (paired.read, paired.dropped) == (2, {"candidates are equal": 1})
    assert truncated == Truncated(left_out=1, kept=4)


def test_a_pair_is_told_its_direction_and_no_other_is():
    pair = Pair(
        prompt_id="p", prompt="q", direction=[0.8, -0.6], chosen="a", rejected="b", margin=1.0
    )
    rated = Pair(prompt_id="p", prompt="q", direction=None, chosen="a", rejected="b", margin=1.0)
    told, untold = as_conversations([pair, rated], ["helpfulness", "verbosity"])
    assert told[0][0]["content"].endswith("= helpfulness*80 + verbosity*-60")
    assert untold == ([{"role": "user", "content": "q"}], "a", "b")
