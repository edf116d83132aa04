"""Selection: golden choices, ties, completeness, shard invariance, replay."""

import dataclasses
import json
import math
import os
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpa.artefacts.jsonl import encode, write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.directions import scalar_reward
from dpa.errors import InputError
from dpa.methods.best_of_n import (
    Repeats,
    SelectionPlan,
    Truncated,
    best_of_n,
    replay_rows,
    select,
    select_sampled,
    selected_conversations,
)
from dpa.records import Annotation, Prompt, ScoredSample, Selected

LAW = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}


def plan(iteration=2, directions=2, responses=3, replay=0.0):
    """Iteration 1 is DPA's: every direction chooses among all."""
    return SelectionPlan(LAW, 0, iteration, directions, responses, iteration == 1, replay)


def candidate(the_plan, prompt_id, direction, sample, rewards):
    shared = the_plan.shared
    return ScoredSample(
        prompt_id=prompt_id,
        direction_index=-1 if shared else direction,
        direction=None if shared else the_plan.direction(prompt_id, direction),
        condition=[50, 50] if shared else None,
        sample_index=sample,
        seed=1,
        response=f"{prompt_id}/{direction}/{sample}",
        finish_reason="stop",
        prompt_tokens=1,
        response_tokens=1,
        attributes={},
        rewards=rewards,
    )


def make_prompts(n):
    return [Prompt(prompt_id=f"p{i}", prompt=f"prompt {i}", source="test") for i in range(n)]


def candidates_of(the_plan, prompts):
    """Rewards that vary with everything, deterministically."""
    total = the_plan.directions_per_prompt * the_plan.responses_per_direction
    for i, prompt in enumerate(prompts):
        for n in range(total):
            direction, sample = divmod(n, the_plan.responses_per_direction)
            sample = n if the_plan.shared else sample
            rewards = [float((7 * n + 13 * i) % 101), float((31 * n + 5 * i) % 97)]
            yield candidate(the_plan, prompt.prompt_id, direction, sample, rewards)


def test_best_of_n_by_hand():
    # v = (0.8, -0.6): 0.8*70-0.6*50 = 26, 0.8*60-0.6*20 = 36, 0.8*80-0.6*60 = 28.
    rewards = [[70, 50], [60, 20], [80, 60]]
    assert best_of_n([scalar_reward([0.8, -0.6], r) for r in rewards]) == 1
    assert best_of_n([scalar_reward([1.0, 0.0], r) for r in rewards]) == 2


def test_ties_go_to_the_lowest_index():
    assert best_of_n([5.0, 9.0, 9.0]) == 1


rewards_lists = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=20)


@given(rewards_lists, rewards_lists, st.floats(-45, 0))
def test_more_candidates_never_lower_the_chosen_reward(few, more, angle):
    from dpa.directions import from_degrees

    v = from_degrees(angle)
    scores = [scalar_reward(v, r) for r in few + more]
    chosen = scores[best_of_n(scores[: len(few)])]
    assert chosen == max(scores[: len(few)])
    assert scores[best_of_n(scores)] >= chosen


@pytest.mark.parametrize("iteration", [1, 2])
@pytest.mark.parametrize("shards", [1, 2, 7])
def test_same_bytes_for_any_number_and_order_of_shards(tmp_path, iteration, shards):
    the_plan = plan(iteration)
    prompts = make_prompts(9)
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    records = list(candidates_of(the_plan, prompts))
    per_prompt = len(records) // len(prompts)
    cuts = [round(i * len(prompts) / shards) for i in range(shards + 1)]
    paths = []
    for i, (a, b) in enumerate(pairwise(cuts)):
        paths.append(tmp_path / f"{i}.jsonl")
        write_jsonl(paths[-1], records[a * per_prompt : b * per_prompt])
    rows = list(select_sampled(paths[::-1], prompts, the_plan, RowCounts(), Truncated()))
    whole = tmp_path / "whole.jsonl"
    write_jsonl(whole, records)
    expected = list(select_sampled([whole], prompts, the_plan, RowCounts(), Truncated()))
    assert b"".join(map(encode, rows)) == b"".join(map(encode, expected))
    assert [r.prompt_id for r in rows] == [p.prompt_id for p in prompts for _ in range(2)]


def test_iteration_one_chooses_among_all(tmp_path):
    the_plan = plan(1)
    prompts = make_prompts(1)
    records = list(candidates_of(the_plan, prompts))
    path = tmp_path / "0.jsonl"
    write_jsonl(path, records)
    for i, row in enumerate(select_sampled([path], prompts, the_plan, RowCounts(), Truncated())):
        v = the_plan.direction("p0", i)
        assert row.candidates == len(records) == 6
        assert row.scalar_reward == pytest.approx(max(scalar_reward(v, r.rewards) for r in records))


def test_distinct_answers_are_chosen_once_per_prompt(tmp_path):
    """Also where samples have the same text; where answers run out, the best is chosen again."""
    the_plan = dataclasses.replace(plan(1, directions=3, responses=2), distinct=True)
    rewards = {"p0": [90.0, 90.0, 80.0, 70.0, 60.0, 50.0], "p1": [5.0, 9.0, 9.0, 9.0, 9.0, 9.0]}
    texts = {"p0": "aabcde", "p1": "xyyyyy"}
    records = [
        msgspec.structs.replace(record, response=texts[p][i % 6], rewards=[rewards[p][i % 6], 0.0])
        for i, record in enumerate(candidates_of(the_plan, make_prompts(2)))
        for p in [record.prompt_id]
    ]
    write_jsonl(tmp_path / "0.jsonl", records)
    rows = list(
        select_sampled([tmp_path / "0.jsonl"], make_prompts(2), the_plan, RowCounts(), Truncated())
    )
    assert [row.response for row in rows] == [*"abc", *"yxy"]
    assert [row.candidates for row in rows] == [6, 4, 3, 6, 1, 6]


def test_one_direction_takes_the_best_answers_of_a_shared_pool(tmp_path):
    """RSF from DPA's first candidates."""
    pool = plan(1, directions=3, responses=2)
    fixed = {"distribution": "fixed", "direction": [0.0, -1.0]}
    the_plan = dataclasses.replace(pool, distinct=True, distribution=fixed)
    verbosity = [50.0, 20.0, 60.0, 10.0, 30.0, 40.0]
    records = [
        msgspec.structs.replace(record, response=f"{v:g}", rewards=[90.0, v])
        for record, v in zip(candidates_of(pool, make_prompts(1)), verbosity, strict=True)
    ]
    write_jsonl(tmp_path / "0.jsonl", records)
    found = select_sampled(
        [tmp_path / "0.jsonl"], make_prompts(1), the_plan, RowCounts(), Truncated()
    )
    assert [(row.response, row.scalar_reward) for row in found] == [
        ("10", -10.0), ("20", -20.0), ("30", -30.0),
    ]  # fmt: skip


@pytest.mark.parametrize("iteration", [1, 2])
def test_truncated_candidates_are_chosen_only_where_all_are(tmp_path, iteration):
    the_plan = plan(iteration)
    [first, second] = prompts = make_prompts(2)
    best, cut = {"rewards": [99.0, 0.0]}, {"finish_reason": "length"}
    records = [
        msgspec.structs.replace(record, **best if i % 3 == 0 else {"rewards": [float(i), 0.0]})
        for i, record in enumerate(candidates_of(the_plan, prompts))
    ]
    records = [
        # The best of the first prompt, and everything of the second.
        msgspec.structs.replace(record, **cut)
        if record.prompt_id == second.prompt_id or record.rewards[0] == 99.0
        else record
        for record in records
    ]
    write_jsonl(tmp_path / "0.jsonl", records)
    truncated = Truncated()
    rows = list(select_sampled([tmp_path / "0.jsonl"], prompts, the_plan, RowCounts(), truncated))
    rewards = {
        p.prompt_id: [r.rewards[0] for r in rows if r.prompt_id == p.prompt_id] for p in prompts
    }
    # Candidates 0 to 5, of which 0 and 3 are truncated; in iteration 2 each direction has three.
    assert rewards == {
        first.prompt_id: [5.0, 5.0] if iteration == 1 else [2.0, 5.0],
        second.prompt_id: [99.0, 99.0],
    }
    assert {row.candidates for row in rows[:2]} == {4 if iteration == 1 else 2}
    assert truncated == Truncated(left_out=2, kept=6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r[:-1], "has samples [0, 1], expected 0..2"),
        (lambda r: [*r, r[-1]], "expected 0..2"),
        (lambda r: r[3:] + r[:3], None),  # order within a prompt does not matter
        (lambda r: r[:6] + r[12:] + r[6:12], "out of order or in two shards"),
        (lambda r: r[:6] + r[:6] + r[6:], "has samples"),
    ],
)
def test_incomplete_candidates_are_refused(tmp_path, spoil, message):
    the_plan = plan(2)
    prompts = make_prompts(3)
    path = tmp_path / "0.jsonl"
    records = list(candidates_of(the_plan, prompts))
    write_jsonl(
        path,
        spoil(records[:6]) + records[6:]
        if message != "out of order or in two shards"
        else spoil(records),
    )
    if message is None:
        assert len(list(select_sampled([path], prompts, the_plan, RowCounts(), Truncated()))) == 6
        return
    with pytest.raises(InputError) as caught:
        list(select_sampled([path], prompts, the_plan, RowCounts(), Truncated()))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_direction_of_another_seed_is_refused(tmp_path):
    prompts = make_prompts(1)
    path = tmp_path / "0.jsonl"
    write_jsonl(path, candidates_of(plan(2), prompts))
    other = SelectionPlan(LAW, 1, 2, 2, 3)
    with pytest.raises(InputError, match="expected"):
        list(select_sampled([path], prompts, other, RowCounts(), Truncated()))


def test_prompts_without_candidates_are_counted(tmp_path):
    the_plan = plan(2)
    prompts = make_prompts(3)
    path = tmp_path / "0.jsonl"
    write_jsonl(path, candidates_of(the_plan, prompts[:2]))
    row_counts = RowCounts()
    list(select_sampled([path], prompts, the_plan, row_counts, Truncated()))
    assert (row_counts.read, row_counts.kept, row_counts.dropped["no candidates"]) == (3, 2, 1)


def test_nan_reward_is_refused_on_read(tmp_path):
    path = tmp_path / "0.jsonl"
    [record, *_] = candidates_of(plan(2), make_prompts(1))
    line = json.loads(encode(record))
    path.write_text(json.dumps(line).replace("[0.0,", "[1e999,").replace("[0.0", "[1e999") + "\n")
    with pytest.raises(InputError, match=r"0\.jsonl:1"):
        list(select_sampled([path], make_prompts(1), plan(2), RowCounts(), Truncated()))


def test_replay_is_its_share_and_chooses_the_best_original(tmp_path):
    the_plan = plan(2, replay=0.25)
    prompts = make_prompts(4)
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    write_jsonl(tmp_path / "0.jsonl", candidates_of(the_plan, prompts))
    originals = [
        Annotation(
            prompt_id=p.prompt_id, prompt=p.prompt, response=f"original {i}", attributes={},
            rewards=[10.0 * i, 0.0], split="train",
        )
        for p in prompts[:3]
        for i in range(4)
    ]  # fmt: skip
    write_jsonl(tmp_path / "a.jsonl", originals)
    sampled, replayed = RowCounts(), RowCounts()
    rows = list(
        select([tmp_path / "0.jsonl"], tmp_path / "prompts.jsonl", [tmp_path / "a.jsonl"],
               the_plan, sampled, replayed, Truncated())
    )  # fmt: skip
    replay = [r for r in rows if r.origin == "replay"]
    assert len(replay) == replay_rows(8, 0.25) == 3
    assert len(replay) / len(rows) == pytest.approx(0.25, abs=0.03)
    assert {r.response for r in replay} == {"original 3"}  # verbosity 0: most helpful always wins
    assert replayed.dropped["no original responses"] == 1


def test_a_scalar_method_is_told_no_direction_and_chooses_by_it(tmp_path):
    distribution = {"distribution": "fixed", "direction": [0.8, -0.6]}
    the_plan = SelectionPlan(distribution, 0, 1, 2, 3)
    prompts = make_prompts(2)
    records = [
        msgspec.structs.replace(record, direction=None)
        for record in candidates_of(the_plan, prompts)
    ]
    path = tmp_path / "0.jsonl"
    write_jsonl(path, records)
    rows = list(select_sampled([path], prompts, the_plan, RowCounts(), Truncated()))
    assert [row.direction for row in rows] == [[0.8, -0.6]] * 4
    first = [r.rewards for r in records[:3]]
    assert rows[0].scalar_reward == pytest.approx(max(0.8 * a - 0.6 * b for a, b in first))


def test_replayed_rows_are_told_their_direction_or_nothing(tmp_path):
    path, names = tmp_path / "selected.jsonl", ["helpfulness", "verbosity"]
    row = Selected(
        prompt_id="p", prompt="Why?", direction=[0.8, -0.6], response="So.", rewards=[50.0, 50.0],
        scalar_reward=10.0, candidates=3, origin="sampled",
    )  # fmt: skip
    write_jsonl(path, [row, msgspec.structs.replace(row, origin="replay")])
    plain = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    sampled, replayed = selected_conversations(path, names, {"sampled", "replay"})
    assert sampled == replayed
    assert sampled[0]["content"].endswith("helpfulness*80 + verbosity*-60")
    assert sampled[1:] == plain
    assert list(selected_conversations(path, names, {"sampled"})) == [sampled, plain]
    assert list(selected_conversations(path, names, set())) == [plain, plain]
    with pytest.raises(InputError, match=r"selected\.jsonl:1: .*rerun select_responses"):
        list(selected_conversations(path, [*names, "correctness"], set()))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_selection_is_the_same_for_any_sharding_and_maximises_the_reward(
    tmp_path, monkeypatch, data
):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # it would take longer than all the rest
    plan = SelectionPlan(
        {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}, 0, 2, 2, 3
    )
    n = data.draw(st.integers(1, 5))
    asked = [Prompt(prompt_id=f"{i:016x}", prompt=f"prompt {i}", source="s") for i in range(n)]
    scores = st.floats(0, 100).map(lambda x: round(x, 1))
    records = [
        ScoredSample(
            prompt_id=prompt.prompt_id,
            direction_index=d,
            direction=plan.direction(prompt.prompt_id, d),
            sample_index=s,
            seed=1,
            response=f"{d}/{s}",
            finish_reason="stop",
            prompt_tokens=1,
            response_tokens=1,
            attributes={},
            rewards=[data.draw(scores), data.draw(scores)],
        )
        for prompt in asked
        for d in range(2)
        for s in range(3)
    ]
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    paths = []
    for number, (a, b) in enumerate(pairwise([0, *cuts, n])):
        paths.append(tmp_path / f"{number}.jsonl")
        write_jsonl(paths[-1], records[6 * a : 6 * b])
    paths = data.draw(st.permutations(paths))
    rows = list(select_sampled(paths, asked, plan, RowCounts(), Truncated()))
    assert [row.prompt_id for row in rows] == [p.prompt_id for p in asked for _ in range(2)]
    for number, row in enumerate(rows):
        own = records[3 * number : 3 * number + 3]
        best = max(own, key=lambda r: (scalar_reward(row.direction, r.rewards), -r.sample_index))
        assert (row.response, row.rewards) == (best.response, best.rewards)


def pooled(folder, candidates, degrees=0.0, spoil=list):
    """Rows of a prompt with four directions, its samples, and the directions."""
    the_plan = SelectionPlan(LAW, 0, 2, 4, 3, candidates=candidates, neighbour_degrees=degrees)
    records = list(candidates_of(the_plan, make_prompts(1)))
    write_jsonl(folder / "0.jsonl", spoil(records))
    rows = list(
        select_sampled([folder / "0.jsonl"], make_prompts(1), the_plan, RowCounts(), Truncated())
    )
    return rows, records, [the_plan.direction("p0", i) for i in range(4)]


@pytest.mark.parametrize(
    ("candidates", "degrees"), [("own", 0.0), ("neighbours", 12.0), ("all", 0.0)]
)
def test_a_direction_chooses_among_its_candidates(tmp_path, candidates, degrees):
    rows, records, directions = pooled(tmp_path, candidates, degrees)
    angles = [math.degrees(math.atan2(*reversed(direction))) for direction in directions]
    reach = {"own": 0.0, "neighbours": degrees, "all": 180.0}[candidates]
    for row, angle in zip(rows, angles, strict=True):
        near = {i for i, other in enumerate(angles) if abs(angle - other) <= reach}
        pool = [r for r in records if r.direction_index in near]
        best = max(pool, key=lambda r: scalar_reward(row.direction, r.rewards))
        assert row.response == best.response
        assert row.candidates == len(pool)
        assert row.sampled_under == (None if candidates == "own" else best.direction)
        assert (b"sampled_under" in encode(row)) == (candidates != "own")
    sizes = {"own": {3}, "neighbours": {6}, "all": {12}}
    assert {row.candidates for row in rows} == sizes[candidates]


def test_every_sample_of_the_pool_matches_its_own_direction(tmp_path):
    def spoil(records):
        return [*records[:-1], msgspec.structs.replace(records[-1], direction=[1.0, 0.0])]

    with pytest.raises(InputError, match=r"direction 3 is \[1.0, 0.0\], expected"):
        pooled(tmp_path, "all", spoil=spoil)


def test_ties_go_to_the_directions_own(tmp_path):
    rows, _, directions = pooled(
        tmp_path,
        "all",
        spoil=lambda some: [msgspec.structs.replace(r, rewards=[50.0, 50.0]) for r in some],
    )
    assert [row.sampled_under for row in rows] == directions


def test_repeated_responses_are_counted(tmp_path):
    rows, _, _ = pooled(tmp_path, "all")
    replay = [msgspec.structs.replace(rows[0], origin="replay", sampled_under=None)] * 3
    repeats = Repeats()
    assert list(repeats.count([*rows, *replay])) == [*rows, *replay]
    different = len({row.response for row in rows})
    assert different < 4
    assert (repeats.rows, repeats.repeated) == (4, 4 - different)
    assert repeats.share == (4 - different) / 4
