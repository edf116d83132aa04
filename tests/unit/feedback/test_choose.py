"""Which samples are rated: the best by random directions, others at random, none twice."""

import pytest

from dpa.artefacts.jsonl import encode, write_jsonl
from dpa.directions import sample_direction, scalar_reward
from dpa.errors import InputError
from dpa.feedback.choose import ChoiceCounts, ChoicePlan, choose_to_rate, response_hash
from dpa.records import Prompt, ScoredSample
from dpa.seeds import derive_seed

LAW = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}


def plan(best=2, at_random=2, **changes):
    return ChoicePlan(**{"distribution": LAW, "seed": 0, "iteration": 2, "best": best,
                         "at_random": at_random} | changes)  # fmt: skip


def make_prompts(n):
    return [Prompt(prompt_id=f"p{i}", prompt=f"prompt {i}", source="test") for i in range(n)]


def sample(prompt, number, rewards, response=None):
    return ScoredSample(
        prompt_id=prompt.prompt_id,
        direction_index=0,
        sample_index=number,
        seed=1,
        response=response or f"{prompt.prompt_id}/{number}",
        finish_reason="stop",
        prompt_tokens=1,
        response_tokens=1,
        attributes={},
        rewards=rewards,
    )


def samples_of(prompts, each=12):
    return [
        sample(prompt, n, [float((7 * n + 13 * i) % 101), float((31 * n + 5 * i) % 97)])
        for i, prompt in enumerate(prompts)
        for n in range(each)
    ]


def choose(folder, prompts, samples, the_plan, *, held_out=(), before=(), shards=1):
    cut = [samples[i * len(samples) // shards : (i + 1) * len(samples) // shards]
           for i in range(shards)]  # fmt: skip
    paths = [folder / f"{i}.jsonl" for i in range(shards)]
    for path, some in zip(paths, cut, strict=True):
        write_jsonl(path, some)
    counts = ChoiceCounts()
    chosen = choose_to_rate(paths[::-1], prompts, held_out, before, the_plan, counts)
    return chosen, counts


def test_the_best_by_random_directions_and_others(tmp_path):
    [prompt] = prompts = make_prompts(1)
    samples = samples_of(prompts)
    best, counts = choose(tmp_path, prompts, samples, plan(best=3, at_random=0))
    expected, left = set(), list(samples)
    for index in range(3):
        v = sample_direction(LAW, derive_seed(0, "feedback"), 2, prompt.prompt_id, index)
        first = max(left, key=lambda s: scalar_reward(v, s.rewards))
        left.remove(first)
        expected.add(first.response)
    assert {item.response for item in best} == expected
    assert counts.as_dict()["chosen"] == {"best": 3, "random": 0}
    more, counts = choose(tmp_path, prompts, samples, plan(best=3, at_random=4))
    assert expected < {item.response for item in more}
    assert len({item.response for item in more}) == 7
    assert counts.as_dict()["chosen"] == {"best": 3, "random": 4}
    assert all(item.response_hash == response_hash(item.response) for item in more)


def test_no_response_twice_and_none_of_before(tmp_path):
    [prompt] = prompts = make_prompts(1)
    samples = [sample(prompt, n, [float(n), 0.0], response="abc"[n % 3]) for n in range(9)]
    chosen, counts = choose(tmp_path, prompts, samples, plan(4, 4))
    assert sorted(item.response for item in chosen) == ["a", "b", "c"]
    assert counts.left_out["repeats another sample of its prompt"] == 6
    later, counts = choose(tmp_path, prompts, samples, plan(4, 4), before=chosen[:2])
    assert [item.response for item in later] == [chosen[2].response]
    assert counts.left_out["chosen in an iteration before"] == 2


def test_the_same_bytes_for_any_shards(tmp_path):
    prompts = make_prompts(6)
    found = {
        b"".join(map(encode, choose(tmp_path, prompts, samples_of(prompts), plan(), shards=n)[0]))
        for n in (1, 2, 3)
    }
    assert len(found) == 1


def test_some_prompts_only(tmp_path):
    prompts = make_prompts(6)
    chosen, counts = choose(tmp_path, prompts, samples_of(prompts), plan(prompts=2))
    assert len({item.prompt_id for item in chosen}) == counts.prompts == 2
    assert len(chosen) == 8
    others, _ = choose(tmp_path, prompts, samples_of(prompts), plan(prompts=2, iteration=4))
    assert {i.prompt_id for i in others} != {i.prompt_id for i in chosen}


def test_validation_prompts_are_refused(tmp_path):
    prompts = make_prompts(3)
    with pytest.raises(InputError, match="prompt p1 is for validation, whose prompts are never"):
        choose(tmp_path, prompts, samples_of(prompts), plan(), held_out=prompts[1:2])
    with pytest.raises(InputError, match="prompt p2 is not in the prompt file"):
        choose(tmp_path, prompts[:2], samples_of(prompts), plan())
