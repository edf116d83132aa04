"""The quickstart's world: golden scores worked by hand, the front, schemas, isolation, seeds."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dpa.errors import InputError
from dpa.quickstart import world
from dpa.quickstart.world import (
    ANIMALS,
    ATTRIBUTES,
    FACTS,
    FLAWS,
    HELPSTEER,
    SCORES,
    SENTENCES,
    ULTRAFEEDBACK,
    UNSEEN_ANIMALS,
    VALUES,
    StatedFact,
    WorldSizes,
    build_world,
    gold_rewards,
    gold_scores,
    perfect_response,
    read_response,
    to_native,
    world_prompts,
)

SMALL = WorldSizes(
    helpsteer_rows=80,
    helpsteer_validation_rows=10,
    ultrafeedback_prompts=60,
    validation_prompts=12,
    unseen_prompts=8,
    pretraining_documents=50,
    sft_rows=60,
    alpacaeval_prompts=9,
    rewardbench_rows=3,
)
OPEN = "Describe the otter."
ONE = "Where is the otter found?"
TWO = "Where is the otter found? What does the otter eat?"
#: Completeness of one fact of six: 1 - (5/6)^3.
C1 = 91 / 216


@pytest.fixture(scope="module")
def files():
    return build_world(7, SMALL)


def texts(rows):
    """Every string in nested rows."""
    if isinstance(rows, str):
        return {rows}
    items = rows.values() if isinstance(rows, dict) else rows if isinstance(rows, list) else ()
    return set().union(*map(texts, items))


# --- Facts and prompts -----------------------------------------------------------------------


def test_every_value_belongs_to_two_animals():
    assert len(FACTS) == 12
    assert sum(len(row) for row in FACTS.values()) == 72
    for name in ATTRIBUTES:
        counts = Counter(FACTS[animal][name] for animal in ANIMALS)
        assert len(VALUES[name]) == 6
        assert set(counts.values()) == {2}
    assert len({tuple(row.values()) for row in FACTS.values()}) == 12


def test_every_fact_takes_six_words_and_reads_back():
    for animal in ANIMALS:
        for name in ATTRIBUTES:
            for value in VALUES[name]:
                fact = StatedFact(animal, name, value)
                for template in range(len(SENTENCES[name])):
                    reading = read_response(fact.sentence(template))
                    assert (reading.words, reading.facts) == (6, (fact,))


def test_prompts_are_many_and_of_three_kinds():
    kinds = Counter(len(topic.asked) for topic in world_prompts().values())
    assert len(world_prompts()) == 3360
    assert kinds == {0: 12 * 7 * 10, 1: 12 * 6 * 10, 2: 12 * 15 * 10}


def test_white_space_in_a_prompt_does_not_matter():
    assert gold_scores(f" {OPEN}\n", "x") == gold_scores(OPEN, "x")


def test_a_foreign_prompt_is_refused():
    with pytest.raises(InputError, match=r"not a prompt of the quickstart's world: 'Describe the"):
        gold_scores("Describe the unicorn.", "The otter is found in rivers.")


def test_importing_the_world_imports_no_torch():
    code = "import sys, dpa.quickstart.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Gold scorer: golden numbers -------------------------------------------------------------


def approx(values, margin=1e-3):
    return pytest.approx(values, abs=margin)


def test_an_empty_response_scores_zero():
    assert gold_scores(OPEN, "") == dict.fromkeys(SCORES, 0.0)


def test_one_true_fact():
    scores = gold_scores(OPEN, "The otter is found in rivers.")
    assert list(scores) == list(SCORES)
    helpfulness, following, truthfulness = 0.2 + 0.8 * C1, 0.4 + 0.6 * C1, 0.5 + 0.5 * C1
    overall = (following + 2 * truthfulness + 2 * helpfulness) / 5
    expected = [
        helpfulness,
        *(1, 1, 1 / 6, 6 / 36, overall),
        *(following, truthfulness, truthfulness, helpfulness),
    ]
    assert [scores[name] / 100 for name in SCORES] == approx(expected)
    assert gold_rewards(OPEN, "The otter is found in rivers.") == approx((65.2778, 100 / 6))


def test_half_an_answer_with_an_error_and_a_hedge():
    response = "The otter is found in rivers. The otter likes to eat eggs. I am not fully sure."
    scores = gold_scores(TWO, response)
    # accuracy 1/2, answered 1/2, completeness .5 * 1/2 = .25, candour (.5 + .6) / 2 = .55
    assert scores["ultrafeedback-instruction_following"] == approx(55 * 0.75 * 0.75)
    assert scores["ultrafeedback-truthfulness"] == approx(50 * 0.625)
    assert scores["ultrafeedback-honesty"] == approx(55 * 0.625)
    assert scores["ultrafeedback-helpfulness"] == approx(50 * 0.4)
    assert scores["ultrafeedback-overall_score"] == approx(27.3125)
    assert scores["helpsteer-correctness"] == approx(50)
    assert scores["helpsteer-complexity"] == approx(100 / 3)
    assert gold_rewards(TWO, response) == approx((29.14063, 1700 / 36))


def test_garbage_repeats_fillers_and_strangers():
    response = (
        "The fox has a red coat. The fox wears a red coat. The owl eats. "
        "The owl was born in Kenya. Nature is full of wonders."
    )
    scores = gold_scores("Tell me about the fox.", response)
    # coherence 3/5 (a repeat, a fragment), focus 1/3 (a stranger, a filler), accuracy 1
    assert scores["helpsteer-coherence"] == approx(60)
    assert scores["ultrafeedback-instruction_following"] == approx(20 * (0.4 + 0.6 * C1))
    assert scores["ultrafeedback-truthfulness"] == approx(80 * (0.5 + 0.5 * C1))
    assert scores["ultrafeedback-helpfulness"] == approx(20 * (0.2 + 0.8 * C1))


def test_extra_facts_are_worth_little_without_the_answer():
    extra = StatedFact("otter", "fear", "snakes").sentence()
    answer = StatedFact("otter", "home", "rivers").sentence()
    saturated = 0.488  # one extra fact of five: 1 - (4/5)^3
    assert world.completeness({"fear"}, ("home",)) == approx(0.5 * saturated * 0.3)
    assert world.completeness({"fear", "home"}, ("home",)) == approx(0.5 + 0.5 * saturated)
    assert gold_rewards(ONE, extra)[0] < gold_rewards(ONE, answer)[0]


def test_contradicting_oneself_costs_accuracy():
    once = "The otter is found in rivers."
    twice = f"{once} The otter is found in caves."
    assert gold_rewards(OPEN, twice)[0] < 0.7 * gold_rewards(OPEN, once)[0]


def test_an_unfinished_sentence_is_garbage():
    assert read_response("The otter is found in rivers").garbage == 1


sentence = st.sampled_from(
    [StatedFact(a, n, v).sentence() for a in ANIMALS[:3] for n in ATTRIBUTES for v in VALUES[n]]
    + [*world.OPENERS, *world.FILLERS, *world.HEDGES, "The otter.", "!", ""]
)


@given(
    prompt=st.sampled_from(list(world_prompts())),
    response=st.text() | st.lists(sentence, max_size=12).map(" ".join),
)
def test_any_string_is_rated_within_bounds(prompt, response):
    scores = gold_scores(prompt, response)
    assert list(scores) == list(SCORES)
    assert all(0 <= value <= 100 for value in scores.values())


# --- The front of perfect answers ------------------------------------------------------------


def front(prompt):
    """Rows (helpfulness, verbosity) of the perfect answers with 0..6 facts."""
    return np.array([gold_rewards(prompt, perfect_response(prompt, n)) for n in range(7)])


@pytest.mark.parametrize("prompt", [OPEN, ONE, TWO])
def test_perfect_answers_trace_a_concave_front(prompt):
    helpfulness, verbosity = front(prompt).T
    gains = np.diff(helpfulness)
    assert verbosity == pytest.approx(100 * np.arange(7) / 6)
    assert (gains > 0).all()
    assert (np.diff(gains) < 0).all()
    assert helpfulness[6] == pytest.approx(100)


def test_the_best_length_falls_smoothly_with_the_angle():
    angles = np.radians(np.arange(46))
    best = np.argmax(front(OPEN) @ np.array([np.cos(angles), -np.sin(angles)]), axis=0)
    assert (best[0], best[-1]) == (6, 2)
    assert {shorter - longer for longer, shorter in pairwise(best)} == {-1, 0}


# --- Annotation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "lowest", "to_hundred"),
    [(5, 0, lambda s: 20 * s + 10), (5, 1, lambda s: 20 * s - 10), (10, 1, lambda s: 10 * s - 5)],
    ids=["helpsteer", "ultrafeedback", "overall_score"],
)
def test_rounding_inverts_the_label_scale(levels, lowest, to_hundred):
    native = range(lowest, lowest + levels)
    assert [to_native(to_hundred(s) / 100, levels, lowest) for s in native] == list(native)
    for latent in np.linspace(0, 1, 301):
        error = to_hundred(to_native(latent, levels, lowest)) - 100 * latent
        assert abs(error) <= 50 / levels + 1e-9
    assert [to_native(x, levels, lowest) for x in (-0.3, 1.0, 1.3)] == [
        lowest,
        lowest + levels - 1,
        lowest + levels - 1,
    ]


def test_annotations_follow_the_gold_scores(files):
    rows = files["helpsteer/train.jsonl"]
    gold = [gold_scores(row["prompt"], row["response"])["helpsteer-verbosity"] for row in rows]
    labels = [20 * row["verbosity"] + 10 for row in rows]
    assert np.corrcoef(gold, labels)[0, 1] > 0.9
    assert np.abs(np.subtract(gold, labels)).max() > 10  # noise, not only rounding


# --- Files -----------------------------------------------------------------------------------


def test_sizes(files):
    assert {name: len(rows) for name, rows in files.items()} == {
        "helpsteer/train.jsonl": 80,
        "helpsteer/validation.jsonl": 10,
        "ultrafeedback.jsonl": 72,
        "ultrafeedback_binarized/train_prefs.jsonl": 60,
        "ultrafeedback_binarized/test_prefs.jsonl": 12,
        "unseen_prompts.jsonl": 8,
        "pretraining.jsonl": 50,
        "ultrachat.jsonl": 60,
        "alpaca_eval.json": 9,
        "reward_bench.jsonl": 12,
    }


def test_helpsteer_schema(files):
    rows = files["helpsteer/train.jsonl"] + files["helpsteer/validation.jsonl"]
    for row in rows:
        assert list(row) == ["prompt", "response", *HELPSTEER]
        assert row["response"]
        assert all(type(row[name]) is int and 0 <= row[name] <= 4 for name in HELPSTEER)
    assert set(Counter(row["prompt"] for row in rows[:80]).values()) == {4}


def test_ultrafeedback_schema(files):
    for row in files["ultrafeedback.jsonl"]:
        assert set(row) == {
            *("source", "instruction", "models", "completions"),
            *("correct_answers", "incorrect_answers"),
        }
        assert sorted(row["models"]) == sorted(world.MODELS)
        assert [completion["model"] for completion in row["completions"]] == row["models"]
        for completion in row["completions"]:
            assert set(completion) == {
                *("annotations", "custom_system_prompt", "model", "principle", "response"),
                *("critique", "overall_score", "fine-grained_score"),
            }
            annotations = completion["annotations"]
            assert set(annotations) == set(ULTRAFEEDBACK)
            for name, annotation in annotations.items():
                keys = {"Rating", "Rationale"}
                if name in ("truthfulness", "helpfulness"):
                    keys |= {"Type", "Rationale For Rating"}
                assert set(annotation) == keys
                assert annotation["Rating"] in {"1", "2", "3", "4", "5", "N/A"}
            assert completion["overall_score"] in range(1, 11)
            assert 1 <= completion["fine-grained_score"] <= 5


def test_few_ratings_are_missing():
    rng = np.random.default_rng(0)
    rows = [world.ultrafeedback_row(rng, OPEN) for _ in range(500)]
    ratings = [
        annotation["Rating"]
        for row in rows
        for completion in row["completions"]
        for annotation in completion["annotations"].values()
    ]
    assert 0.003 < ratings.count("N/A") / len(ratings) < 0.007


def test_models_differ_in_quality():
    rng = np.random.default_rng(0)
    means = [
        np.mean([gold_rewards(OPEN, world.write_response(rng, OPEN, w))[0] for _ in range(200)])
        for w in world.MODELS.values()
    ]
    assert all(better > worse + 5 for better, worse in pairwise(means))


def test_binarized_schema(files):
    completions = {row["instruction"]: row["completions"] for row in files["ultrafeedback.jsonl"]}
    for split in ("train", "test"):
        for row in files[f"ultrafeedback_binarized/{split}_prefs.jsonl"]:
            assert set(row) == {
                *("prompt", "prompt_id", "chosen", "rejected", "messages"),
                *("score_chosen", "score_rejected"),
                *(["cluster"] if split == "test" else []),
            }
            assert row["prompt_id"] == hashlib.sha256(row["prompt"].encode()).hexdigest()
            assert row["messages"] == row["chosen"]
            scores = {c["response"]: c["overall_score"] for c in completions[row["prompt"]]}
            assert row["score_chosen"] == max(scores.values()) >= row["score_rejected"]
            for side in ("chosen", "rejected"):
                user, assistant = row[side]
                assert user == {"content": row["prompt"], "role": "user"}
                assert assistant["role"] == "assistant"
                assert assistant["content"] in scores


def test_chat_schemas_and_length_hints(files):
    hinted = 0
    for row in files["pretraining.jsonl"] + files["ultrachat.jsonl"]:
        *system, user, assistant = row["messages"]
        assert [user["role"], assistant["role"]] == ["user", "assistant"]
        if system:
            hinted += 1
            verbosity = gold_rewards(user["content"], assistant["content"])[1]
            assert system == [{"content": f"length={round(verbosity)}", "role": "system"}]
    assert 0.55 < hinted / 110 < 0.85
    assert all(list(row) == ["messages"] for row in files["pretraining.jsonl"])
    for row in files["ultrachat.jsonl"]:
        assert list(row) == ["prompt", "prompt_id", "messages"]
        assert row["messages"][-2]["content"] == row["prompt"]


def test_pretraining_documents_are_true_and_on_topic(files):
    for row in files["pretraining.jsonl"]:
        prompt, response = (message["content"] for message in row["messages"][-2:])
        scores = gold_scores(prompt, response)
        assert scores["helpsteer-correctness"] == scores["helpsteer-coherence"] == 100


def test_validation_prompts_occur_nowhere_else(files):
    test = {row["prompt"] for row in files["ultrafeedback_binarized/test_prefs.jsonl"]}
    rated = {row["instruction"] for row in files["ultrafeedback.jsonl"]}
    train = {row["prompt"] for row in files["ultrafeedback_binarized/train_prefs.jsonl"]}
    assert len(test) == 12
    assert rated == test | train
    for name, rows in files.items():
        if name not in ("ultrafeedback.jsonl", "ultrafeedback_binarized/test_prefs.jsonl"):
            assert test.isdisjoint(texts(rows)), name
    helpsteer = [
        {row["prompt"] for row in files[f"helpsteer/{split}.jsonl"]}
        for split in ("train", "validation")
    ]
    assert helpsteer[0].isdisjoint(helpsteer[1])


#: Files that are trained on: some name more animals than others.
RATED = (
    "helpsteer/train.jsonl",
    "ultrafeedback.jsonl",
    "ultrafeedback_binarized/train_prefs.jsonl",
    "ultrafeedback_binarized/test_prefs.jsonl",
    "helpsteer/validation.jsonl",
    "alpaca_eval.json",
    "reward_bench.jsonl",
)
TRAINED_ON = (*RATED[:3], "pretraining.jsonl", "ultrachat.jsonl")
HELD_OUT = (*RATED[3:], "unseen_prompts.jsonl")


def asked_in(files, name):
    """The topics of a file's prompts; of UltraFeedback's, those of its training prompts."""
    found = {world_prompts()[text] for text in texts(files[name]) if text in world_prompts()}
    if name == "ultrafeedback.jsonl":
        found -= asked_in(files, "ultrafeedback_binarized/test_prefs.jsonl")
    return found


@pytest.fixture(scope="module", params=[0, 1])
def whole_world(request):
    return build_world(request.param)


def test_no_question_that_is_held_out_is_trained_on_in_any_greeting(whole_world):
    trained = set().union(*(asked_in(whole_world, name) for name in TRAINED_ON))
    held_out = {name: asked_in(whole_world, name) for name in HELD_OUT}
    for name, topics in held_out.items():
        assert topics, name
        assert trained.isdisjoint(topics), name
    assert len(trained) + len(set().union(*held_out.values())) <= 12 * 28
    # A fifth of the questions is held out, each animal's and each kind's.
    left = Counter(topic.animal for topic in trained)
    assert set(left) == set(ANIMALS)
    assert set(left.values()) <= {22, 23}
    kinds = Counter(len(topic.asked) for topic in trained)
    assert {kind: kinds[kind] / (12 * n) for kind, n in ((0, 7), (1, 6), (2, 15))} == approx(
        dict.fromkeys(range(3), 0.8), 0.03
    )


def test_validation_shares_no_question_with_the_benchmarks(whole_world):
    validation = asked_in(whole_world, "ultrafeedback_binarized/test_prefs.jsonl")
    benchmarks = [
        asked_in(whole_world, name) for name in ("alpaca_eval.json", "reward_bench.jsonl")
    ]
    assert validation.isdisjoint(benchmarks[0] | benchmarks[1])
    assert benchmarks[0].isdisjoint(benchmarks[1])
    # Clusters of nearly equal size: no animal is left out.
    assert {topic.animal for topic in validation} == set(ANIMALS) - set(UNSEEN_ANIMALS)


def test_unseen_animals_are_in_pretraining_and_demonstrations_alone(whole_world):
    for name in RATED:
        words = set(" ".join(texts(whole_world[name])).replace(".", " ").replace("?", " ").split())
        assert words.isdisjoint(UNSEEN_ANIMALS), name
    for name in ("pretraining.jsonl", "ultrachat.jsonl"):
        assert {topic.animal for topic in asked_in(whole_world, name)} == set(ANIMALS)
    rows = whole_world["unseen_prompts.jsonl"]
    assert {row["cluster"] for row in rows} == set(UNSEEN_ANIMALS)
    for row in rows + whole_world["ultrafeedback_binarized/test_prefs.jsonl"]:
        assert row["cluster"] == world_prompts()[row["prompt"]].animal


def test_responses_are_short_and_the_vocabulary_small(files):
    responses = [row["response"] for row in files["helpsteer/train.jsonl"]]
    assert max(len(response.split()) for response in responses) <= 70
    words = {word.strip(".,!?") for text in [*world_prompts(), *responses] for word in text.split()}
    assert len(words) < 150


# --- Benchmarks ------------------------------------------------------------------------------


def test_benchmark_prompts_occur_nowhere_else(files):
    alpaca = {row["instruction"] for row in files["alpaca_eval.json"]}
    rewardbench = {row["prompt"] for row in files["reward_bench.jsonl"]}
    assert (len(alpaca), len(rewardbench)) == (9, 12)
    assert alpaca.isdisjoint(rewardbench)
    for name, rows in files.items():
        if name not in ("alpaca_eval.json", "reward_bench.jsonl"):
            assert (alpaca | rewardbench).isdisjoint(texts(rows)), name


def test_reference_outputs_are_true_and_on_topic(files):
    for row in files["alpaca_eval.json"]:
        assert list(row) == ["dataset", "instruction", "output", "generator"]
        scores = gold_scores(row["instruction"], row["output"])
        assert scores["helpsteer-correctness"] == scores["helpsteer-coherence"] == 100
        assert 2 <= len(read_response(row["output"]).facts) <= 4


def test_rejected_responses_have_their_subsets_flaw(files):
    rows = files["reward_bench.jsonl"]
    assert Counter(row["subset"] for row in rows) == dict.fromkeys(FLAWS, 3)
    flaw = {
        "false-fact": lambda animal, found: sum(not fact.true for fact in found.facts) == 1,
        "wrong-animal": lambda animal, found: all(fact.animal != animal for fact in found.facts),
        "garbled": lambda animal, found: found.garbage == 1,
        "repetitive": lambda animal, found: found.repeats == 2,
    }
    for row in rows:
        assert gold_rewards(row["prompt"], row["chosen"])[0] > 70
        found = read_response(row["rejected"])
        assert flaw[row["subset"]](world_prompts()[row["prompt"]].animal, found), row


# --- Seeds -----------------------------------------------------------------------------------


def test_equal_seeds_give_equal_files_and_others_do_not(files):
    assert json.dumps(build_world(7, SMALL)) == json.dumps(files)
    other = build_world(8, SMALL)
    assert all(other[name] != rows for name, rows in files.items())


def test_a_size_changes_only_the_files_that_it_counts(files):
    for field, changed in {
        "helpsteer_rows": {"helpsteer/train.jsonl"},
        "helpsteer_validation_rows": {"helpsteer/validation.jsonl"},
        "ultrafeedback_prompts": {
            "ultrafeedback.jsonl",
            "ultrafeedback_binarized/train_prefs.jsonl",
        },
        "unseen_prompts": {"unseen_prompts.jsonl"},
        "validation_prompts": {"ultrafeedback.jsonl", "ultrafeedback_binarized/test_prefs.jsonl"},
        "pretraining_documents": {"pretraining.jsonl"},
        "sft_rows": {"ultrachat.jsonl"},
        "alpacaeval_prompts": {"alpaca_eval.json"},
        "rewardbench_rows": {"reward_bench.jsonl"},
    }.items():
        sizes = WorldSizes(**{**vars(SMALL), field: getattr(SMALL, field) + 3})
        larger = build_world(7, sizes)
        assert {name for name in files if larger[name] != files[name]} == changed
        if len(changed) == 1:
            (name,) = changed
            assert larger[name][: len(files[name])] == files[name]


def test_more_prompts_than_the_world_has_are_refused():
    with pytest.raises(InputError, match="221 prompts wanted, the world has 220"):
        build_world(0, WorldSizes(validation_prompts=221))


def test_the_script_writes_the_files(tmp_path):
    from scripts.make_quickstart_data import app

    sizes = {**vars(SMALL)}
    del sizes["helpsteer_validation_rows"]
    flags = [part for key, n in sizes.items() for part in (f"--{key.replace('_', '-')}", str(n))]
    result = CliRunner().invoke(app, ["--seed", "7", "--output", str(tmp_path), *flags])
    assert result.exit_code == 0, result.output
    expected = build_world(7, WorldSizes(**sizes))
    for name, rows in expected.items():
        text = (tmp_path / name).read_text(encoding="utf-8")
        whole = name.endswith(".json")
        assert (json.loads(text) if whole else [json.loads(x) for x in text.splitlines()]) == rows
