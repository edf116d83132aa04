"""How far a policy has moved: its samples' log-probabilities, against plain transformers."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.artefacts.sidecars import read_sidecar, write_sidecar
from dpa.config.sampling import SamplingConfig
from dpa.errors import InputError
from dpa.evaluation import divergence
from dpa.generation import likelihood
from dpa.generation.engine import Answered, Request
from dpa.generation.likelihood import batches_of, log_probabilities
from dpa.generation.load import load_engine
from dpa.generation.sample import EVALUATION, Steering, always, sample_file
from dpa.records import Prompt, Sample
from dpa.text.prompts import direction_system_prompt, messages
from dpa.text.tokenization import ChatTokenizer
from tests.support.tiny_models import make_chat_tokenizer, make_policy, make_tokenizer

NAMES = ["helpfulness", "verbosity"]
TEMPERATURE = 0.7
TEXTS = ["Describe the otter.", "Where does the fox live, and what does the badger eat?"]
SAMPLING = SamplingConfig(
    engine="transformers", kv_cache_dtype="auto", temperature=TEMPERATURE, max_new_tokens=24,
    max_prompt_tokens=200, prompts_per_chunk=3, rows_per_batch=16, max_truncated_fraction=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A policy, and another one of the same tokens."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = make_chat_tokenizer()
    return (
        make_policy(folder / "policy", tokenizer),
        make_policy(folder / "sft", tokenizer, end_bias=1.0),
    )


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_jsonl(path, [Prompt(prompt_id=t[:5], prompt=t, source="test") for t in TEXTS])
    return path


@pytest.fixture
def sample(models, prompts, tmp_path):
    """Samples the policy under steerings."""

    def under(*grid):
        path = tmp_path / "samples.jsonl"
        sample_file(
            path, policy=models[0], prompts=prompts, steer=always(grid), names=NAMES,
            sampling=SAMPLING, seed=0, iteration=EVALUATION,
        )  # fmt: skip
        return path

    return under


def measure(samples, prompts, policy, reference, temperature=TEMPERATURE):
    output = samples.with_name("divergence.parquet")
    divergence.measure_divergence(
        output, policy=policy, reference=reference, samples=samples, prompts=prompts, names=NAMES,
        temperature=temperature,
    )  # fmt: skip
    return pd.read_parquet(output), read_sidecar(output)


@torch.no_grad()
def plain_logprob(model, prompt, response):
    """One sequence, no padding, every step of the softmax written down."""
    logits = model(torch.tensor([prompt + response])).logits[0].double() / TEMPERATURE
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    steps = range(len(prompt) - 1, len(prompt) + len(response) - 1)
    return sum(float(probabilities[t, y].log()) for t, y in zip(steps, response, strict=True))


def test_each_sample_under_both_policies(models, prompts, sample):
    directions = [[1.0, 0.0], [0.8, -0.6]]
    path = sample(*(Steering(i, direction=v, samples=5) for i, v in enumerate(directions)))
    table, sidecar = measure(path, prompts, *models)
    records = list(read_jsonl(path, Sample))
    assert {r.finish_reason for r in records} == {"stop", "length"}
    chat = ChatTokenizer.load(models[0])
    policy, sft = (AutoModelForCausalLM.from_pretrained(path).eval() for path in models)
    texts = {text[:5]: text for text in TEXTS}
    others = 0
    for row, record in zip(table.to_dict("records"), records, strict=True):
        assert (row["prompt_id"], row["direction_index"], row["sample_index"]) == (
            record.prompt_id, record.direction_index, record.sample_index
        )  # fmt: skip
        text = texts[record.prompt_id]
        asked = messages(text, direction_system_prompt(NAMES, record.direction))
        response = chat.tokenizer(record.response, add_special_tokens=False)["input_ids"]
        if record.finish_reason == "stop":
            response.append(chat.tokenizer.eos_token_id)
        assert row["tokens"] == len(response)
        others += len(response) != record.response_tokens
        steered = plain_logprob(policy, chat.prompt_ids(asked), response)
        free = plain_logprob(sft, chat.prompt_ids(messages(text, None)), response)
        assert row["policy_logprob"] == pytest.approx(steered, abs=1e-3)
        assert row["reference_logprob"] == pytest.approx(free, abs=1e-3)
    assert sidecar["retokenised"] == others
    assert sidecar["counts"] == {"read": 20, "kept": 20, "dropped": {}}
    assert sidecar["temperature"] == TEMPERATURE


def scored(model, answered, tokens_per_batch, temperature):
    """The log-probability of each row."""
    batches = batches_of(answered, tokens_per_batch)
    found = np.zeros(len(answered))
    given = [[answered[row] for row in batch] for batch in batches]
    for batch, values in zip(batches, log_probabilities(model, given, temperature), strict=True):
        found[batch] = values
    return found


def test_a_stopped_measurement_goes_on_where_it_was(models, prompts, sample, monkeypatch):
    """Stopped within each policy, and before the sidecar: no batch is done again."""
    path = sample(Steering(0, direction=[0.8, -0.6], samples=3))
    output = path.with_name("divergence.parquet")
    monkeypatch.setattr(divergence, "DIVERGENCE_TOKENS", 1)  # a row in each batch
    measure(path, prompts, *models)
    whole = output.read_bytes()
    output.unlink()
    output.with_name("divergence.parquet.meta.json").unlink()
    batches, work = [], likelihood._score_batch

    def counted(*given):
        if len(batches) in stops:
            stops.remove(len(batches))
            raise KeyboardInterrupt
        batches.append(given)
        return work(*given)

    stops = {2, 9}
    monkeypatch.setattr(likelihood, "_score_batch", counted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            measure(path, prompts, *models)
        assert not output.exists()
    monkeypatch.setattr(divergence, "write_sidecar", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure(path, prompts, *models)
    monkeypatch.setattr(divergence, "write_sidecar", write_sidecar)
    measure(path, prompts, *models)
    assert len(batches) == 2 * 6
    assert output.read_bytes() == whole
    assert not list(output.parent.glob("*.partial*"))


def test_what_was_measured_otherwise_is_measured_again(models, prompts, sample, monkeypatch):
    path = sample(Steering(-1, samples=3))
    monkeypatch.setattr(divergence, "write_sidecar", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure(path, prompts, *models, temperature=1.0)
    monkeypatch.setattr(divergence, "write_sidecar", write_sidecar)
    again, _ = measure(path, prompts, *models)
    path.with_name("divergence.parquet").unlink()
    anew, _ = measure(path, prompts, *models)
    assert again.equals(anew)


def test_the_probabilities_are_those_that_tokens_are_drawn_by(models):
    """Of every possible first token, against how often the engine draws it."""
    engine = load_engine(
        "transformers", models[0], temperature=TEMPERATURE, max_new_tokens=1, max_model_len=140,
        rows_per_batch=4000,
    )  # fmt: skip
    asked = engine.chat.prompt_ids(messages(TEXTS[0], None))
    drawn = engine._generate_chunk([Request(asked, list(range(4000)))])[:, 0]
    tokens = range(len(engine.chat.tokenizer))
    found = scored(models[0], [Answered(asked, [token]) for token in tokens], 4096, TEMPERATURE)
    assert np.exp(found).sum() == pytest.approx(1)
    shares = np.bincount(drawn, minlength=len(tokens)) / len(drawn)
    # Three standard deviations of a share of 4,000.
    assert np.abs(shares - np.exp(found)).max() < 3 * 0.5 / np.sqrt(4000)


def test_batches_do_not_matter(models):
    chat = ChatTokenizer.load(models[0])
    answered = [
        Answered(chat.prompt_ids(messages(text, None)), list(range(5, 5 + n)))
        for n, text in enumerate([*TEXTS, "Help", TEXTS[1] * 3], 1)
    ]
    together, alone = (scored(models[0], answered, n, 1.0) for n in (4096, 1))
    assert together == pytest.approx(alone, abs=1e-4)


def test_a_policy_has_not_moved_from_itself(models, prompts, sample):
    path = sample(Steering(-1, samples=4))
    table, _ = measure(path, prompts, models[0], models[0])
    assert (table["policy_logprob"] == table["reference_logprob"]).all()
    assert (table["policy_logprob"] < 0).all()


def test_generated_ids_are_the_answers_without_its_end(models):
    chat = ChatTokenizer.load(models[0])
    turns = messages(TEXTS[0], None)
    ids, mask = chat.conversation_ids(messages(TEXTS[0], None, "It lives in rivers."))
    asked, [response] = chat.generated_ids(turns, ["It lives in rivers."])
    assert asked == chat.prompt_ids(turns)
    own = [token for token, of_assistant in zip(ids, mask, strict=True) if of_assistant]
    assert [*response, chat.tokenizer.eos_token_id] == own


def test_models_of_other_tokens_are_refused(models, prompts, sample, tmp_path):
    other = make_policy(tmp_path / "other", make_tokenizer())
    with pytest.raises(InputError, match=r"other: has other tokens than .*policy"):
        measure(sample(Steering(-1)), prompts, models[0], other)


def test_greedy_samples_are_refused(models, prompts, sample):
    with pytest.raises(InputError, match="temperature 0"):
        measure(sample(Steering(-1)), prompts, *models, temperature=0)


def test_samples_of_other_prompts_are_refused(models, prompts, sample):
    path = sample(Steering(-1))
    lines = [json.loads(line) | {"prompt_id": "gone"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"prompt gone is not in .*; rerun sample_evaluation"):
        measure(path, prompts, *models)
