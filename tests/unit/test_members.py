"""Several reward models choose: scores by hand, the join, the same bytes, refusals."""

from itertools import pairwise

import msgspec
import pytest

from dpa.artefacts.jsonl import encode, write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.config.load import load_config
from dpa.config.steering import PenaltyConfig
from dpa.errors import InputError
from dpa.members import by_member, joined_annotations, mean_rewards, mean_samples, scalar_score
from dpa.methods.best_of_n import SelectionPlan, Truncated, replay_rows, select
from dpa.methods.preference_pairs import sampled_pairs
from dpa.records import Annotation, Prompt, ScoredSample

ARC = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
PENALTY = PenaltyConfig(penalty=0.5)
#: v.r under (1, 0): 60 and 40 (mean 50, sd 10), and 48 by both.
SPLIT, AGREED = [[60.0, 0.0], [40.0, 0.0]], [[48.0, 0.0], [48.0, 0.0]]


@pytest.mark.parametrize(
    ("pessimism", "split", "agreed"),
    [("none", 50.0, 48.0), ("min", 40.0, 48.0), (PENALTY, 45.0, 48.0)],
)
def test_scores_by_hand(pessimism, split, agreed):
    assert scalar_score([1.0, 0.0], SPLIT, pessimism) == pytest.approx(split)
    assert scalar_score([1.0, 0.0], AGREED, pessimism) == pytest.approx(agreed)


def test_the_spread_is_that_of_the_scalar():
    """Two members that differ in opposite ways in two objectives agree on v.r."""
    opinions = [[60.0, 80.0], [40.0, 53.333333]]
    assert scalar_score([0.8, -0.6], opinions, PENALTY) == pytest.approx(0.0, abs=1e-5)


def test_one_member_is_left_as_it_is():
    assert mean_rewards([[0.1 + 0.2, 1.0]]) == [0.1 + 0.2, 1.0]
    assert mean_rewards(SPLIT) == [50.0, 0.0]
    assert scalar_score([0.8, -0.6], [[70.0, 50.0]], "min") == 0.8 * 70 + -0.6 * 50


def test_files_of_members_that_do_not_divide_are_refused():
    assert by_member([1, 2, 3, 4], 2, "--scored") == [[1, 2], [3, 4]]
    with pytest.raises(InputError, match="--scored: 3 files of 2 members"):
        by_member([1, 2, 3], 2, "--scored")


def plan(pessimism="min", members=2, **options) -> SelectionPlan:
    return SelectionPlan(ARC, 0, 2, 2, 3, members=members, pessimism=pessimism, **options)


PROMPTS = [Prompt(prompt_id=f"p{i}", prompt=f"prompt {i}", source="test") for i in range(9)]


def rewards_by(member: int, prompt: int, direction: int, sample: int) -> list[float]:
    n = 3 * direction + sample
    return [float((7 * n + 13 * prompt + 29 * member) % 101), float((31 * n + 5 * member) % 97)]


def scored_by(member: int) -> list[ScoredSample]:
    return [
        ScoredSample(
            prompt_id=prompt.prompt_id, direction_index=d,
            direction=plan().direction(prompt.prompt_id, d), sample_index=s, seed=1,
            response=f"{prompt.prompt_id}/{d}/{s}", finish_reason="stop", prompt_tokens=1,
            response_tokens=1, attributes={}, rewards=rewards_by(member, i, d, s),
        )
        for i, prompt in enumerate(PROMPTS) for d in range(2) for s in range(3)
    ]  # fmt: skip


def annotated_by(member: int) -> list[Annotation]:
    return [
        Annotation(prompt_id=prompt.prompt_id, prompt=prompt.prompt, response=f"original {j}",
                   attributes={}, rewards=rewards_by(member, i, 0, j), split="train")
        for i, prompt in enumerate(PROMPTS) for j in range(4)
    ]  # fmt: skip


def cut(folder, records, shards: int) -> list:
    """Shards of whole prompts."""
    folder.mkdir(parents=True)
    each = len(records) // len(PROMPTS)
    ends = [round(i * len(PROMPTS) / shards) * each for i in range(shards + 1)]
    paths = []
    for number, (a, b) in enumerate(pairwise(ends)):
        paths.append(folder / f"{number}.jsonl")
        write_jsonl(paths[-1], records[a:b])
    return paths


def selection(folder, the_plan, shards=1, order=1) -> list:
    write_jsonl(folder / "prompts.jsonl", PROMPTS)
    scored = [
        path
        for member in range(the_plan.members)
        for path in cut(folder / f"scored{member}", scored_by(member), shards)[::order]
    ]
    annotations = [
        path
        for member in range(the_plan.members)
        for path in cut(folder / f"annotations{member}", annotated_by(member), shards)
    ]
    prompts = folder / "prompts.jsonl"
    return list(
        select(scored, prompts, annotations, the_plan, RowCounts(), RowCounts(), Truncated())
    )


@pytest.mark.parametrize("pessimism", ["none", "min", PENALTY])
def test_what_was_maximised_and_the_means_are_written(tmp_path, pessimism):
    the_plan = plan(pessimism, replay_fraction=0.25)
    rows = selection(tmp_path, the_plan)
    assert len(rows) == 18 + replay_rows(18, 0.25)
    for row in rows:
        i = int(row.prompt_id[1:])
        replayed = row.origin == "replay"
        groups = {
            f"original {s}" if replayed else f"p{i}/{d}/{s}": [
                rewards_by(member, i, d, s) for member in range(2)
            ]
            for d in range(1 if replayed else 2)
            for s in range(4 if replayed else 3)
            if replayed or the_plan.direction(row.prompt_id, d) == row.direction
        }
        scores = {r: scalar_score(row.direction, o, pessimism) for r, o in groups.items()}
        assert row.response == max(scores, key=lambda r: scores[r])
        assert row.scalar_reward == pytest.approx(scores[row.response], abs=1e-6)
        assert row.rewards == mean_rewards(groups[row.response])
        assert row.candidates == len(groups)


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_the_same_bytes_for_any_number_and_order_of_shards(tmp_path, shards):
    the_plan = plan(members=3, replay_fraction=0.25)
    rows = selection(tmp_path / "these", the_plan, shards, order=-1)
    expected = selection(tmp_path / "those", the_plan)
    assert b"".join(map(encode, rows)) == b"".join(map(encode, expected))


def test_one_member_chooses_as_ever(tmp_path):
    rows = selection(tmp_path / "one", plan("none", members=1))
    for row in rows:
        own = [r for r in scored_by(0) if r.direction == row.direction]
        best = max(own, key=lambda r: sum(v * x for v, x in zip(row.direction, r.rewards)))  # noqa: B905
        assert (row.response, row.rewards) == (best.response, best.rewards)


def test_pairs_are_the_extremes_of_what_is_maximised(tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    files = [*cut(tmp_path / "a", scored_by(0), 2), *cut(tmp_path / "b", scored_by(1), 2)]
    pairs = list(
        sampled_pairs(
            files, tmp_path / "prompts.jsonl", plan(), RowCounts(), RowCounts(), Truncated()
        )
    )
    first = pairs[0]
    scores = [
        scalar_score(first.direction, [rewards_by(m, 0, 0, s) for m in range(2)], "min")
        for s in range(3)
    ]
    assert first.chosen == f"p0/0/{scores.index(max(scores))}"
    assert first.rejected == f"p0/0/{scores.index(min(scores))}"
    assert first.margin == pytest.approx(max(scores) - min(scores), abs=1e-6)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda records: records[:-6],  # without the last prompt
        lambda records: [msgspec.structs.replace(records[0], response="another"), *records[1:]],
        lambda records: records[:5] + records[6:],
        lambda records: [],
    ],
)
def test_members_that_scored_other_samples_are_refused(tmp_path, spoil):
    write_jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    for member, records in enumerate([scored_by(0), spoil(scored_by(1))]):
        write_jsonl(tmp_path / f"{member}.jsonl", records)
    files = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    with pytest.raises(InputError, match=r"\.jsonl: the members scored different samples"):
        list(
            sampled_pairs(
                files, tmp_path / "prompts.jsonl", plan(), RowCounts(), RowCounts(), Truncated()
            )
        )


@pytest.mark.parametrize("spoil", [lambda records: records[:-1], lambda records: records[::-1]])
def test_members_that_annotated_other_responses_are_refused(tmp_path, spoil):
    write_jsonl(tmp_path / "0.jsonl", annotated_by(0))
    write_jsonl(tmp_path / "1.jsonl", spoil(annotated_by(1)))
    with pytest.raises(InputError, match=r"1\.jsonl: other responses than in .*0\.jsonl"):
        list(joined_annotations([tmp_path / "0.jsonl", tmp_path / "1.jsonl"], 2))


def test_shown_are_the_means(tmp_path):
    paths = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    for member, path in enumerate(paths):
        records = scored_by(member)
        outputs = {"a": 10.0 * member, "b": 1.0}
        write_jsonl(path, [msgspec.structs.replace(r, attributes=outputs) for r in records])
    means = list(mean_samples(paths))
    assert [m.response for m in means] == [r.response for r in scored_by(0)]
    assert means[4].attributes == {"a": 5.0, "b": 1.0}
    assert means[4].rewards == mean_rewards([rewards_by(m, 0, 1, 1) for m in range(2)])
    write_jsonl(paths[1], scored_by(1)[1:])
    with pytest.raises(InputError, match=r"1\.jsonl: other responses than in"):
        list(mean_samples(paths))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dpa": {"pessimism": "min"}}, "dpa.pessimism: needs several reward models"),
        ({"dpa": {"pessimism": {"penalty": 1.0}}}, "dpa.pessimism: needs several reward models"),
        ({"reward_model": {"members": 3, "path": "some/folder"}}, "gives one model, some/folder"),
        ({"reward_model": {"members": 0}}, "reward_model.members"),
        ({"reward_model": {"average": True}}, "reward_model.average: there is nothing to average"),
        (
            {
                "reward_model": {"members": 3, "average": True},
                "feedback": {"annotator": {"kind": "gold"}},
            },
            "reward_model.average: .* feedback.annotator to null",
        ),
        (
            {"reward_model": {"members": 3, "average": True}, "dpa": {"pessimism": "min"}},
            "dpa.pessimism: .* their average is one",
        ),
        ({"reward_model": {"members": 2}, "dpa": {"pessimism": {"penalty": 0}}}, "penalty"),
        ({"reward_model": {"members": 2}, "dpa": {"pessimism": "mean"}}, "pessimism"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        load_config({"experiment": "quickstart", **given})


def test_members_and_pessimism_are_accepted():
    config = load_config({"reward_model": {"members": 3}, "dpa": {"pessimism": {"penalty": "0.5"}}})
    assert config.dpa.pessimism == PENALTY
