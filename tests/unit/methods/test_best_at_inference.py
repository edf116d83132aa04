"""Best of n at inference: what each direction chooses among, by hand."""

import pytest

from dpa.artefacts.jsonl import write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.errors import InputError
from dpa.methods.best_at_inference import choose_answers
from dpa.methods.best_of_n import Truncated
from dpa.records import Prompt, ScoredSample

HELPFUL, TERSE = [1.0, 0.0], [0.6, -0.8]


def sample(number, rewards, prompt="p0", index=-1, direction=None, reason="stop"):
    return ScoredSample(
        prompt_id=prompt, direction_index=index, direction=direction,
        condition=None if direction is None else [50, 40], sample_index=number, seed=7 + number,
        response=f"{prompt} {index} {number}", finish_reason=reason, prompt_tokens=3,
        response_tokens=5, attributes={"a": 1.0}, rewards=rewards,
    )  # fmt: skip


@pytest.fixture
def choose(tmp_path):
    """Answers of two directions as (direction_index, sample_index, response), and the counts."""

    def chosen(*members, n=2, **settings):
        prompts = tmp_path / "prompts.jsonl"
        write_jsonl(prompts, [Prompt(prompt_id=f"p{i}", prompt="?", source="s") for i in range(2)])
        files = [tmp_path / f"{number}.jsonl" for number in range(len(members))]
        for file, samples in zip(files, members, strict=True):
            write_jsonl(file, samples)
        counts, truncated = RowCounts(), Truncated()
        answers = list(
            choose_answers(
                files, prompts, [HELPFUL, TERSE], n, counts, truncated,
                members=len(members), **settings,
            )
        )  # fmt: skip
        return answers, counts, truncated

    return chosen


def brief(answers):
    return [(a.direction_index, a.sample_index, a.response) for a in answers]


def test_all_directions_choose_among_the_same_unsteered_responses(choose):
    # Two answers each, of samples 0 and 1, and 2 and 3. Terse: 0.6 * h - 0.8 * l.
    rewards = [[80.0, 90.0], [60.0, 20.0], [50.0, 10.0], [90.0, 30.0]]
    answers, counts, _ = choose([sample(i, r) for i, r in enumerate(rewards)])
    # Terse: -24, 20 and 22, 30.
    assert brief(answers) == [
        (0, 0, "p0 -1 0"), (0, 1, "p0 -1 3"), (1, 0, "p0 -1 1"), (1, 1, "p0 -1 3")
    ]  # fmt: skip
    assert [a.direction for a in answers] == [HELPFUL, HELPFUL, TERSE, TERSE]
    assert [a.seed for a in answers] == [7, 10, 8, 10]
    assert (counts.read, counts.dropped) == (2, {"no candidates": 1})


def test_a_direction_chooses_among_its_own_where_it_was_asked_for(choose):
    best_of_other = sample(0, [100.0, 0.0], index=1, direction=TERSE)
    answers, _, _ = choose(
        [
            sample(0, [10.0, 0.0], index=0, direction=HELPFUL),
            sample(1, [20.0, 0.0], index=0, direction=HELPFUL),
            best_of_other,
            sample(1, [90.0, 0.0], index=1, direction=TERSE),
        ]
    )
    assert brief(answers) == [(0, 0, "p0 0 1"), (1, 0, "p0 1 0")]
    assert answers[0].condition == [50, 40]  # what the policy was asked for


def test_truncated_responses_are_chosen_only_where_all_are(choose):
    cut = sample(0, [99.0, 0.0], reason="length")
    answers, _, truncated = choose([cut, sample(1, [10.0, 50.0])])
    assert {a.response for a in answers} == {"p0 -1 1"}
    assert (truncated.left_out, truncated.kept) == (2, 0)
    answers, _, truncated = choose([cut, sample(1, [10.0, 50.0], reason="length")])
    assert [a.finish_reason for a in answers] == ["length", "length"]
    assert (truncated.left_out, truncated.kept) == (0, 4)


def test_members_are_pessimistic_together(choose):
    first = [sample(0, [90.0, 0.0]), sample(1, [60.0, 0.0])]
    second = [sample(0, [10.0, 0.0]), sample(1, [50.0, 0.0])]
    assert choose(first, second, pessimism="min")[0][0].response == "p0 -1 1"  # 10 against 50
    assert choose(first)[0][0].response == "p0 -1 0"


def test_other_responses_than_expected_are_named(choose):
    with pytest.raises(InputError, match=r"0\.jsonl: 1 responses of direction 0 to prompt p0"):
        choose([sample(0, [1.0, 1.0])])
    asked = [sample(i, [1.0, 1.0], index=0, direction=TERSE) for i in range(2)]
    with pytest.raises(InputError, match=r"direction 0 is \[0\.6, -0\.8\], expected"):
        choose(asked)
