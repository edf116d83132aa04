"""Scoring: equal to plain transformers, whatever is shared, padded or batched."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from dpa.errors import InputError
from dpa.models import ModelRef, output_names
from dpa.records import Turn
from dpa.reward.load import load_scorer, open_scorer, read_reward_model
from dpa.reward.packed import Family, passes
from dpa.reward.transformers_scorer import common_prefix, load_classifier
from dpa.text.prompts import reward_input
from tests.support.tiny_models import ARCHITECTURES, WORDS, PlainModel, make_reward_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of a random reward model of an architecture."""
    folder = tmp_path_factory.mktemp("reward")
    return cache(lambda name: make_reward_model(folder / name, name))


def some_groups(count: int = 5, responses: int = 7):
    groups = []
    for i in range(count):
        prompt = f"Tell me about {' '.join(WORDS[i : 2 * i + 1])}."
        texts = [
            " ".join(WORDS[(i * j + 3 * k) % len(WORDS)] for k in range((5 * j + i) % 13))
            for j in range(responses - 1)
        ]
        groups.append((prompt, [*texts, texts[0]]))
    return groups


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("tokens_per_batch", [1, 100, 10**6])
def test_equals_plain_transformers(checkpoint, name, tokens_per_batch):
    model = load_scorer(checkpoint(name), tokens_per_batch=tokens_per_batch)
    groups = some_groups()
    plain = PlainModel(checkpoint(name))
    expected = [np.stack([plain.score(p, r) for r in responses]) for p, responses in groups]
    assert np.ptp(np.concatenate(expected)) > 10
    for scores in (list(model.score_groups(groups)), model.score_chunk(groups)):
        for mine, theirs in zip(scores, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_plain_transformers_in_padded_batches(checkpoint, side):
    path = checkpoint("mistral")
    plain = PlainModel(path, padding_side=side)
    [(prompt, responses)] = some_groups(1)
    texts = [reward_input(prompt, response) for response in responses]
    with torch.no_grad():
        inputs = plain.tokenizer(texts, padding=True, return_tensors="pt")
        expected = plain.model(**inputs).logits
    scores = load_scorer(path, tokens_per_batch=1000).score_chunk([(prompt, responses)])[0]
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_groups_do_not_depend_on_their_neighbours(checkpoint):
    model = load_scorer(checkpoint("mistral"), tokens_per_batch=200)
    groups = some_groups()
    together = list(model.score_groups(groups))
    for group, scores in zip(reversed(groups), reversed(together), strict=True):
        [alone] = model.score_groups([group])
        np.testing.assert_array_equal(alone, scores)


def test_equal_responses_get_equal_scores_and_are_scored_once(checkpoint):
    model = load_scorer(checkpoint("mistral"), tokens_per_batch=200)
    [scores] = model.score_chunk([("Hi", ["otter", "river", "otter"])])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert model.scored == 2


def test_lone_and_empty_responses_and_no_groups(checkpoint):
    model = load_scorer(checkpoint("mistral"), tokens_per_batch=200)
    scores = model.score_chunk([("Hi", [""]), ("Ho", []), ("Hi", ["otter"])])
    assert [len(array) for array in scores] == [1, 0, 1]
    expected = PlainModel(checkpoint("mistral")).score("Hi", "")
    np.testing.assert_allclose(scores[0][0], expected, atol=1e-3)
    assert model.score_chunk([]) == []


@pytest.mark.parametrize("name", ["mistral", "mistral-window", "gemma2"])
def test_attention_in_slices(checkpoint, monkeypatch, name):
    """Long rows look back slice by slice; here already rows of a dozen tokens do."""
    model = load_scorer(checkpoint(name), tokens_per_batch=1000)
    expected = model.score_chunk(some_groups())
    monkeypatch.setattr("dpa.reward.packed.SLICE_TOKENS", 5)
    for mine, theirs in zip(model.score_chunk(some_groups()), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


def test_chat_turns(checkpoint):
    model = load_scorer(checkpoint("llama"), tokens_per_batch=200)
    turns = [Turn("user", "the river"), Turn("assistant", "eats"), Turn("user", "fish")]
    [scores] = model.score_chunk([(turns, ["otter", "far"])])
    expected = PlainModel(checkpoint("llama")).score(turns, "far")
    np.testing.assert_allclose(scores[1], expected, atol=1e-3)


def test_long_inputs_are_truncated_as_by_the_tokenizer_and_counted(checkpoint):
    path = checkpoint("mistral")
    model = load_scorer(path, tokens_per_batch=2000)
    plain = PlainModel(path, truncation_side="left", model_max_length=256)
    responses = [" ".join(WORDS * 20), "otter", "river"]
    [scores] = model.score_chunk([("Hi", responses)])
    assert (model.scored, model.truncated) == (3, 1)
    for response, mine in zip(responses, scores, strict=True):
        expected = plain.score("Hi", response, truncation=True)
        np.testing.assert_allclose(mine, expected, atol=1e-3)


def test_prefix_sharing_computes_fewer_tokens(checkpoint):
    model = load_scorer(checkpoint("mistral"), tokens_per_batch=10**6)
    tokens = []
    model.model.base_model.register_forward_pre_hook(
        lambda _, inputs: tokens.append(inputs[0].numel())
    )
    prompt = " ".join(WORDS * 4)
    model.score_chunk([(prompt, ["otter", "river", "far", "a"])])
    plain = len(model.inputs.tokenizer(reward_input(prompt, "otter"))["input_ids"])
    assert plain > 60
    assert sum(tokens) < plain + 4 * 10


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")]
)
def test_out_of_memory_halves_the_batches(checkpoint, error):
    """Until they fit: 150 tokens of the 800 that it begins with."""
    groups = some_groups()
    expected = load_scorer(checkpoint("llama"), tokens_per_batch=800).score_chunk(groups)
    model = load_scorer(checkpoint("llama"), tokens_per_batch=800)
    sizes = []

    def small_memory(_, inputs):
        sizes.append(inputs[0].numel())
        if sizes[-1] > 150:
            raise error

    model.model.base_model.register_forward_pre_hook(small_memory)
    scores = model.score_chunk(groups)
    for mine, theirs in zip(scores, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)
    assert model.most_tokens in (100, 200)  # rows do not fill a pass of 200 to the last token
    # What was learnt stays: the next groups do not fail first.
    sizes.clear()
    model.score_chunk(groups)
    assert max(sizes) <= 150


def test_out_of_memory_for_a_single_row_is_an_error(checkpoint):
    model = load_scorer(checkpoint("llama"), tokens_per_batch=800)

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA")

    model.model.base_model.register_forward_pre_hook(no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        model.score_chunk(some_groups())


def test_other_errors_are_not_taken_for_a_lack_of_memory(checkpoint):
    model = load_scorer(checkpoint("llama"), tokens_per_batch=800)

    def broken(*_):
        raise RuntimeError("illegal memory access")

    model.model.base_model.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        model.score_chunk(some_groups())
    assert model.most_tokens == 800


def test_an_unknown_architecture_is_scored_row_by_row(checkpoint, monkeypatch):
    groups = some_groups(2)
    expected = load_scorer(checkpoint("llama"), tokens_per_batch=800).score_chunk(groups)
    monkeypatch.setattr("dpa.reward.transformers_scorer.needs_no_mask", lambda config: False)
    model = load_scorer(checkpoint("llama"), tokens_per_batch=800)
    for mine, theirs in zip(model.score_chunk(groups), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


def test_the_head_is_as_precise_as_it_was_saved_and_loaded_onto_the_device(checkpoint):
    path = checkpoint("mistral")
    plain = PlainModel(path).model
    model = load_classifier(ModelRef(path), "cpu", torch.bfloat16)
    assert model.base_model.dtype == torch.bfloat16
    assert not torch.equal(plain.score.weight, plain.score.weight.bfloat16().float())
    torch.testing.assert_close(model.score.weight, plain.score.weight, rtol=0, atol=0)
    meta = load_classifier(ModelRef(path), "meta", torch.bfloat16)  # a device that holds nothing
    assert {weight.device.type for weight in meta.parameters()} == {"meta"}


@pytest.mark.parametrize("most_tokens", [1, 30, 10**6])
def test_passes_hold_every_token_once(most_tokens):
    families = [
        Family([1] * 40, [[2] * n for n in (9, 3, 70, 3)], [0, 1, 2, 3]),
        Family([], [[3] * 5], [4]),
    ]
    found = list(passes(families, most_tokens))
    assert sorted(row for work in found for row in work.rows) == [0, 1, 2, 3, 4]
    assert sum(len(work.ids) for work in found) == 40 + 9 + 3 + 70 + 3 + 5
    for work in found:
        assert len(work.ids) <= most_tokens or len(work.blocks) == 1
        assert [p for p, ids in zip(work.positions, work.ids, strict=True) if ids == 1][-1:] in (
            [39],
            [],
        )


@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2], [1, 2, 3]], 1),  # the shorter one keeps a token of its own
        ([[1, 2, 3], [1, 2, 3]], 2),
        ([[5], [6]], 0),
        ([[1, 2, 3], [1, 9, 3], [1, 2, 3, 4]], 1),
    ],
)
def test_common_prefix(rows, shared):
    assert common_prefix(rows) == shared


def test_outputs_must_have_names():
    unnamed = AutoConfig.for_model("mistral", num_labels=2)
    named = AutoConfig.for_model("mistral", num_labels=2, id2label={0: "a", 1: "b"})
    assert output_names(named, None, "m") == ["a", "b"]
    assert output_names(unnamed, ["x", "y"], "m") == ["x", "y"]
    for config, attributes in ((unnamed, None), (unnamed, ["x"]), (named, ["b", "a"])):
        with pytest.raises(InputError):
            output_names(config, attributes, "m")


@pytest.mark.vllm
class TestVllm:
    """The other engine, for real, on a CPU."""

    @pytest.fixture(autouse=True)
    def _vllm(self):
        pytest.importorskip("vllm")

    @pytest.mark.parametrize("name", ["mistral", "gemma"])
    def test_equals_transformers(self, tmp_path, name):
        path = make_reward_model(tmp_path, name, head_dim=32, hidden_size=64)
        groups = some_groups()
        groups.append(("Hi", [" ".join(WORDS * 20)]))  # truncated
        options = {"tokens_per_batch": 512}
        mine = load_scorer(path, "transformers", **options)
        theirs = load_scorer(path, "vllm", **options)
        expected = mine.score_chunk(groups)
        assert np.ptp(np.concatenate(expected)) > 10
        for found in (theirs.score_chunk(groups), list(theirs.score_groups(iter(groups)))):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, atol=2e-3)
        assert (theirs.names, theirs.max_length) == (mine.names, mine.max_length)
        assert (theirs.scored, theirs.truncated) == (2 * mine.scored, 2 * mine.truncated)
        assert theirs.score_chunk([]) == []
        theirs.close()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_missing_vllm_is_explained(checkpoint):
    with pytest.raises(InputError, match=r"install the extra .* or set reward_model.engine"):
        load_scorer(checkpoint("mistral"), "vllm", tokens_per_batch=100)


def test_a_dead_output_is_named_when_it_has_scored(tmp_path, caplog):
    folder = Path(make_reward_model(tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][1] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for responses, said in ((WORDS[:4], False), (WORDS[:8], True)):
        caplog.clear()
        read = read_reward_model(folder)
        with open_scorer(read, "transformers", tmp_path / "out", tokens_per_batch=512) as model:
            list(model.score_groups([("Hi", responses)]))
        assert ("have the same score by length" in caplog.text) is said
        assert model.constant_outputs() == (["length"] if said else [])
