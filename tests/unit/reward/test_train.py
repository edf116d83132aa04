"""The reward model: data, losses, training, and the checkpoint's form."""

import math
import shutil
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dpa.artefacts.files import content_hash
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import read_sidecar
from dpa.config.trainer import LoraConfig, ScheduleConfig
from dpa.errors import InputError
from dpa.models import ModelRef
from dpa.records import Rating, Turn
from dpa.reward.train import (
    RewardTraining,
    collate,
    load_reward_tokenizer,
    make_learner,
    regression_loss,
    save_reward_model,
    tokenise_ratings,
)
from dpa.text.prompts import REWARD_INSTRUCTION, REWARD_SUFFIX, reward_input
from dpa.text.tokenization import truncate_ids
from dpa.training import trainer
from tests.support.tiny_models import ARCHITECTURES, WORDS, make_causal_lm
from tests.support.training_jobs import training

ATTRIBUTES = ["quality", "length"]
LORA = LoraConfig(rank=2, alpha=4, dropout=0.0)
TRAINER = training(per_device_batch_size=4, adam_betas=(0.9, 0.999))
SCHEDULE = ScheduleConfig(
    learning_rate=1e-2,
    epochs=2,
    batch_size=8,
    warmup_steps=1,
    lr_scheduler="linear",
    max_length=64,
)


def make_rating(index: int, **attributes: float) -> Rating:
    words = [WORDS[(index * 5 + i * i) % len(WORDS)] for i in range(2 + index % 9)]
    return Rating(
        prompt_id=f"{index:016x}",
        prompt=f"Tell me about the {WORDS[index % len(WORDS)]}.",
        response=" ".join(words).capitalize() + ".",
        attributes=attributes,
        dataset="test",
        split="train",
    )


@pytest.fixture(scope="module")
def make_base(tmp_path_factory):
    """Folder of a random causal LM of an architecture."""
    folder = tmp_path_factory.mktemp("base")
    return cache(lambda name: make_causal_lm(folder / name, name))


def make_test_learner(base: str, max_length: int = 64, **options):
    tokenizer = load_reward_tokenizer(base, max_length)
    options = {"lm_loss_weight": 0.5, "token_dropout": 0.0} | options
    return make_learner(base, tokenizer, ATTRIBUTES, TRAINER, **options), tokenizer


def tokenise(tokenizer, ratings, max_length=64):
    return tokenise_ratings(tokenizer, ratings, ATTRIBUTES, max_length, RowCounts())


# --- Data ------------------------------------------------------------------------------------


def test_golden_template():
    """The published reward model's input, character by character."""
    assert reward_input("Hi?", "Hello!") == (
        "[INST] You must read the following conversation carefully and rate the assistant's "
        "response from score 0-100 in these aspects: helpfulness, correctness, coherence, honesty, "
        "complexity, verbosity\n\nUser: Hi?\n\nAssistant: Hello! [/INST]"
    )


def test_rows_are_the_whole_text_with_ranges(make_base):
    _, tokenizer = make_test_learner(make_base("mistral"))
    rating = make_rating(3, quality=70.0)
    [row], truncated = tokenise(tokenizer, [rating])
    ids = row["input_ids"].tolist()
    assert ids == tokenizer(reward_input(rating.prompt, rating.response))["input_ids"]
    assert truncated == 0
    assert tokenizer.decode(ids[slice(*row["response"])]).strip() == rating.response
    assert tokenizer.decode(ids[: row["content"][0]]).endswith(REWARD_INSTRUCTION)
    assert tokenizer.decode(ids[row["content"][1] :]) == REWARD_SUFFIX
    np.testing.assert_array_equal(row["targets"], np.float32([70.0, np.nan]))


def test_chat_turns_and_empty_response(make_base):
    _, tokenizer = make_test_learner(make_base("mistral"))
    rating = make_rating(0, quality=1.0)
    rating.prompt = [Turn("user", "the river"), Turn("assistant", "eats"), Turn("user", "fish")]
    rating.response = ""
    [row], _ = tokenise(tokenizer, [rating])
    assert "User: the river\n\nAssistant: eats\n\nUser: fish" in tokenizer.decode(row["input_ids"])
    assert row["response"] == (0, 0)


@pytest.mark.parametrize("begins", [False, True])
def test_long_inputs_lose_their_beginning_as_in_the_tokenizer(make_base, begins):
    _, tokenizer = make_test_learner(make_base("mistral"), 20)
    if begins:  # as Llama's and Mistral's
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    text = reward_input("the otter " * 20, "a river")
    ids = tokenizer(text)["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) == begins
    assert truncate_ids(ids, 20, tokenizer) == tokenizer(text, truncation=True)["input_ids"]
    assert truncate_ids(ids, len(ids), tokenizer) == ids


def test_ranges_of_truncated_rows(make_base):
    _, tokenizer = make_test_learner(make_base("mistral"))
    rating = make_rating(8, quality=1.0)
    [whole], _ = tokenise(tokenizer, [rating], 64)
    [truncated], count = tokenise(tokenizer, [rating], len(whole["input_ids"]) - 5)
    assert count == 1
    assert truncated["response"] == tuple(p - 5 for p in whole["response"])
    [tail], _ = tokenise(tokenizer, [rating], 3)
    assert tail["response"] == (0, 2)


def test_unlabelled_rows_are_dropped_and_unknown_attributes_refused(make_base):
    _, tokenizer = make_test_learner(make_base("mistral"))
    row_counts = RowCounts()
    rows, _ = tokenise_ratings(
        tokenizer, [make_rating(0), make_rating(1, length=5.0)], ATTRIBUTES, 64, row_counts
    )
    assert len(rows) == 1
    assert row_counts.as_dict()["dropped"] == {"no labelled attribute": 1}
    with pytest.raises(InputError, match=r"safety.*reward_model\.attributes"):
        tokenise(tokenizer, [make_rating(0, safety=1.0)])


# --- Losses ----------------------------------------------------------------------------------


def test_regression_loss_by_hand():
    nan = math.nan
    scores = torch.tensor([[0.5, 0.9], [0.1, 0.2], [0.3, 0.3]], requires_grad=True)
    loss = regression_loss(scores, torch.tensor([[0.7, nan], [0.2, 0.6], [nan, nan]]))
    # Rows: 0.2^2; 0.1^2 + 0.4^2; nothing.
    assert loss.item() == pytest.approx((0.04 + 0.17 + 0.0) / 3)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[0, 1] == scores.grad[2, 0] == 0


def test_every_label_weighs_the_same_however_many_its_row_has():
    """BeaverTails' rows have one label, HelpSteer's five (equation 1 is a sum over labels)."""
    nan = math.nan
    scores = torch.zeros(2, 5, requires_grad=True)
    regression_loss(scores, torch.tensor([[0.5] * 5, [0.5, nan, nan, nan, nan]])).backward()
    assert scores.grad is not None
    assert scores.grad[0, 0] == scores.grad[1, 0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_response_loss_is_that_of_transformers(make_base, name):
    learner, tokenizer = make_test_learner(make_base(name), lm_loss_weight=1.0)
    causal = AutoModelForCausalLM.from_pretrained(make_base(name)).eval()
    rows, _ = tokenise(tokenizer, [make_rating(i, quality=0.0) for i in range(6)])
    expected = []
    for row in rows:
        ids = torch.tensor(row["input_ids"])[None].long()
        labels = torch.full_like(ids, -100)
        labels[:, slice(*row["response"])] = ids[:, slice(*row["response"])]
        expected.append(causal(ids, labels=labels).loss.item())
    # The head is zero and so are the targets: what is left is the language-modelling loss.
    loss = learner.eval()(**collate(rows, tokenizer.pad_token_id))["loss"]
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_loss_is_the_mean_over_rows_however_batched(make_base):
    learner, tokenizer = make_test_learner(make_base("mistral"))
    torch.nn.init.normal_(learner.classifier.score.weight)
    rows, _ = tokenise(tokenizer, [make_rating(i, quality=9.0 * i) for i in range(8)])
    together = learner(**collate(rows, tokenizer.pad_token_id))["loss"].item()
    apart = [learner(**collate(rows[i : i + 2], 0))["loss"].item() for i in range(0, 8, 2)]
    assert together == pytest.approx(np.mean(apart), rel=1e-5)


def test_token_dropout_is_for_training_only_and_spares_the_template(make_base):
    learner, tokenizer = make_test_learner(make_base("mistral"), token_dropout=1.0)
    seen = []
    embeddings = learner.classifier.get_input_embeddings()
    embeddings.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].tolist()))
    rows, _ = tokenise(tokenizer, [make_rating(4, quality=9.0)])
    for is_training in (True, False):
        learner.train(is_training)(**collate(rows, tokenizer.pad_token_id))
    start, end = rows[0]["content"]
    assert seen[1] == rows[0]["input_ids"].tolist()
    assert seen[0][start:end] == [tokenizer.pad_token_id] * (end - start)
    assert seen[0][:start] + seen[0][end:] == seen[1][:start] + seen[1][end:]


# --- Checkpoint ------------------------------------------------------------------------------


def run_training(base: str, output, **options):
    ratings = [make_rating(i, quality=50.0 + i % 7, length=10.0 * (i % 9)) for i in range(24)]
    options = {"lm_loss_weight": 0.1, "token_dropout": 0.1} | options
    settings, schedule = options.pop("trainer", TRAINER), options.pop("schedule", SCHEDULE)
    job = trainer.TrainingJob(ModelRef(base), output, settings, schedule, seed=5, inputs=(base,))
    trainer.run_training(RewardTraining(job, ratings, attributes=ATTRIBUTES, **options))


def test_the_judge_has_ratings_of_its_own(make_base, tmp_path):
    ratings = [make_rating(i, quality=50.0 + i % 7) for i in range(24)]
    ratings = [msgspec.structs.replace(r, split="judge") for r in ratings[:5]] + ratings[5:]
    base = make_base("llama")
    job = trainer.TrainingJob(
        ModelRef(base), tmp_path / "model", TRAINER, SCHEDULE, seed=5, inputs=(base,)
    )
    options = {"attributes": ATTRIBUTES, "lm_loss_weight": 0.1, "token_dropout": 0.0}
    assert len(RewardTraining(job, ratings, split="judge", **options).rows) == 5
    assert len(RewardTraining(job, ratings, **options).rows) == 19


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_checkpoint_is_a_plain_sequence_classifier(make_base, tmp_path, name):
    base = make_base(name)
    run_training(base, tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    config = model.config
    assert config.id2label == dict(enumerate(ATTRIBUTES))
    assert config.label2id == {"quality": 0, "length": 1}
    assert config.problem_type == "regression"
    assert config.pad_token_id is not None
    assert config.pad_token_id != config.eos_token_id
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert not [name for name in weights if "lm_head" in name]

    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    for name_, weight in weights.items():
        if name_ != "score.weight":
            assert not torch.equal(weight, before[name_]), f"{name_} was not trained"
    assert weights["score.weight"].abs().max() > 0

    # Plain use: batch with padding, scores on 0-100, near the labels (50..56 and 0..80).
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = [reward_input(r.prompt, r.response) for r in map(make_rating, range(4))]
    with torch.no_grad():
        scores = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    assert scores.shape == (4, 2)
    assert abs(scores[:, 0].mean() - 53) < 30


def test_saved_scores_are_100_times_the_trained_ones(make_base, tmp_path):
    learner, tokenizer = make_test_learner(make_base("mistral"))
    torch.nn.init.normal_(learner.classifier.score.weight)
    rows, _ = tokenise(tokenizer, [make_rating(i, quality=9.0) for i in range(3)])
    with torch.no_grad():
        trained = learner.eval()(**collate(rows, 0))["scores"]
    save_reward_model(learner, tokenizer, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    for row, expected in zip(rows, trained, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor(row["input_ids"])[None].long()).logits[0]
        torch.testing.assert_close(logits, 100 * expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "lora"), [("mistral", None), ("llama", None), ("llama", LORA)])
def test_a_continued_reward_model_starts_where_it_was(make_base, tmp_path, name, lora):
    base = make_base(name)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = None  # one is added, and embedded, in the first training
    shutil.copytree(base, tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base, first = str(tmp_path / "base"), tmp_path / "first"
    run_training(base, first)
    read_again = load_reward_tokenizer(first, 64)
    learner = make_learner(
        base, read_again, ATTRIBUTES, training(lora=lora), lm_loss_weight=0.5, token_dropout=0.0,
        continued=str(first),
    ).eval()  # fmt: skip
    rows, _ = tokenise(read_again, [make_rating(i, quality=9.0) for i in range(3)])
    plain = AutoModelForSequenceClassification.from_pretrained(first)
    with torch.no_grad():
        scores = learner(**collate(rows, 0))["scores"]
        expected = [plain(torch.tensor(row["input_ids"])[None].long()).logits[0] for row in rows]
    torch.testing.assert_close(100 * scores, torch.stack(expected), rtol=1e-4, atol=1e-3)
    embedding = plain.get_input_embeddings().weight
    head = learner.lm_head.weight
    if name == "llama":  # tied
        assert torch.equal(head, embedding)
    else:
        old = AutoModelForCausalLM.from_pretrained(base).lm_head.weight
        assert torch.equal(head[: len(old)], old)


def test_continuing_trains_on_from_there(make_base, tmp_path):
    base = make_base("llama")
    run_training(base, tmp_path / "first")
    slow = SCHEDULE.model_copy(update={"learning_rate": 1e-6})
    for name, continued in (("next", ModelRef(str(tmp_path / "first"))), ("fresh", None)):
        run_training(base, tmp_path / name, schedule=slow, continued=continued)
    first, following, fresh = (
        load_file(tmp_path / name / "model.safetensors")["score.weight"]
        for name in ("first", "next", "fresh")
    )
    assert 0 < (following - first).abs().max() < 0.1 * first.abs().max()
    assert fresh.abs().max() < 0.1 * first.abs().max()


def test_another_models_reward_model_cannot_be_continued(make_base, tmp_path):
    run_training(make_base("llama"), tmp_path / "first")
    (tmp_path / "first/model.safetensors").unlink()  # said before weights are read
    kinds = "model_type llama, not mistral"
    with pytest.raises(InputError, match=rf"first: .*{kinds}.*feedback\.start"):
        make_test_learner(make_base("mistral"), continued=str(tmp_path / "first"))
    with pytest.raises(InputError, match=r"outputs \['quality', 'length'\], expected \['length'"):
        make_learner(
            make_base("llama"), load_reward_tokenizer(make_base("llama"), 64), ATTRIBUTES[::-1],
            TRAINER, lm_loss_weight=0.0, token_dropout=0.0, continued=str(tmp_path / "first"),
        )  # fmt: skip


def test_training_repeats_and_the_sidecar_counts(make_base, tmp_path):
    base = make_base("mistral")
    for name in ("a", "b"):
        run_training(base, tmp_path / name)
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    sidecar = read_sidecar(tmp_path / "a")
    assert sidecar["counts"]["kept"] == 24
    assert sidecar["labels"] == {"quality": 24, "length": 24}
    assert sidecar["steps"] == 6


def test_gradient_accumulation_and_checkpointing_change_nothing(make_base, tmp_path):
    base = make_base("llama")
    other = TRAINER.model_copy(update={"per_device_batch_size": 8, "gradient_checkpointing": True})
    run_training(base, tmp_path / "a", token_dropout=0.0)
    run_training(base, tmp_path / "b", token_dropout=0.0, trainer=other)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_divergence_stops_the_run(make_base, tmp_path):
    schedule = SCHEDULE.model_copy(update={"learning_rate": 1e30, "epochs": 4})
    with pytest.raises(InputError, match=r"diverged.*learning_rate"):
        run_training(make_base("mistral"), tmp_path / "model", schedule=schedule)
    assert not (tmp_path / "model").exists()


def test_model_too_short_for_max_length(make_base, tmp_path):
    schedule = SCHEDULE.model_copy(update={"max_length": 512})
    with pytest.raises(InputError, match="holds 256 tokens"):
        run_training(make_base("mistral"), tmp_path / "model", schedule=schedule)


def test_pad_token_differs_from_end_token(make_base, tmp_path):
    base = make_base("mistral")
    shutil.copy(Path(base) / "config.json", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    repaired = load_reward_tokenizer(tmp_path, 64)
    assert repaired.pad_token_id != repaired.eos_token_id
    assert len(repaired) == len(tokenizer) + 1
