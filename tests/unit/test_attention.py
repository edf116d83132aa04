"""What attention's configuration says holds in sampling, training and scoring: a tiny model of each
architecture against plain eager attention, one row at a time."""

from functools import cache

import numpy as np
import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from dpa.attention import FAMILIES, VARLEN, RowEnds, attend_rows, choose_attention, fits_kernel
from dpa.errors import InputError
from dpa.generation.engine import Request
from dpa.generation.load import load_engine
from dpa.methods.sft import response_loss
from dpa.reward.load import load_scorer
from dpa.text.prompts import reward_input
from dpa.training.trainer import load_policy
from tests.support.tiny_models import SHAPE, WORDS, make_tokenizer
from tests.support.training_jobs import training

#: As OpenAI named things.
GPT = {"n_embd": 16, "n_inner": 24, "n_layer": 2, "n_head": 2, "n_positions": 256}
QUIET = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
WINDOW = {"sliding_window": 9}
#: A layer with a window and one without.
MIXED = WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
OPTIONS = {
    "cohere": {"logit_scale": 1.0},
    "cohere2": MIXED | {"logit_scale": 1.0},
    "exaone4": MIXED,
    "gemma2": MIXED | {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 0.5},
    "gemma3_text": MIXED | {"query_pre_attn_scalar": 8},
    "gpt2": GPT | QUIET,
    "granitemoe": EXPERTS,
    "ministral": MIXED,
    "ministral3": WINDOW,
    "mistral": WINDOW,
    "mixtral": EXPERTS | WINDOW,
    "olmo3": MIXED,
    "olmoe": EXPERTS,
    "phi": QUIET,
    "phi3": WINDOW,
    "qwen2": MIXED | {"use_sliding_window": True},
    "qwen3": MIXED | {"use_sliding_window": True},
    "qwen3_moe": EXPERTS | WINDOW | {"use_sliding_window": True, "moe_intermediate_size": 8},
    "seed_oss": {"attention_dropout": 0.0},
    "smollm3": MIXED | {"use_sliding_window": True},
    "starcoder2": WINDOW,
    # Not among FAMILIES: sinks, biases by distance, positions of their own, arguments lost.
    "gpt_oss": EXPERTS | MIXED,
    "bloom": {"n_head": 2, "n_layer": 2},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16, "dropout": 0.0},
    "nemotron": {},
}
OTHERS = sorted(set(OPTIONS) - FAMILIES)


def make_config(family: str, **more):
    return CONFIG_MAPPING[family](
        **SHAPE | {"sliding_window": None} | OPTIONS.get(family, {}) | more,
        vocab_size=len(make_tokenizer()) + 8,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of a random model of an architecture: a policy, or a reward model."""

    @cache
    def make(family: str, kind: type = AutoModelForCausalLM) -> str:
        config = make_config(family, num_labels=2, id2label={0: "quality", 1: "length"})
        model = kind.from_config(config)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.3 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp(family)
        if kind is AutoModelForCausalLM:
            # Hardly a response ends.
            model.generation_config = GenerationConfig(eos_token_id=len(make_tokenizer()) - 1)
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return str(folder)

    return make


def reference(path: str, kind: type = AutoModelForCausalLM):
    return kind.from_pretrained(path, attn_implementation="eager").eval()


@pytest.mark.parametrize("family", [*sorted(FAMILIES), *OTHERS])
def test_sampling(checkpoint, family):
    path = checkpoint(family)
    engine = load_engine(
        "transformers",
        path,
        temperature=0,
        max_new_tokens=8,
        max_model_len=100,
        rows_per_batch=2,  # rows of other lengths join later
    )
    ids = [list(range(5, 5 + n)) for n in (14, 3, 7)]
    chunk = engine._generate_chunk([Request(prompt, [0]) for prompt in ids])
    plain = reference(path)
    with torch.no_grad():
        for prompt, row in zip(ids, chunk, strict=True):
            tokens = torch.tensor(row[row >= 0])
            logits = plain(torch.tensor([prompt + row[row >= 0].tolist()])).logits[0]
            logits = logits[len(prompt) - 1 : -1]
            assert logits.std(0).mean() > 0.01
            taken = logits.gather(1, tokens[:, None])[:, 0]
            torch.testing.assert_close(taken, logits.max(1).values, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_training_on_packed_rows(checkpoint, family):
    path = checkpoint(family)
    examples = [{"input_ids": list(range(5, 5 + n)), "labels": [-100] * 2 + list(range(7, 5 + n))}
                for n in (13, 30, 4)]  # fmt: skip
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(examples)
    plain = reference(path)
    losses = [
        response_loss(plain, {name: torch.tensor([ids]) for name, ids in example.items()})
        for example in examples
    ]
    expected = torch.autograd.grad(sum(losses), list(plain.parameters()), allow_unused=True)
    kernel = fits_kernel(plain.config)
    assert kernel != (family == "gemma2")
    for attention in ("auto", VARLEN) if kernel else ("auto",):
        model = load_policy(path, training(attention=attention), packed=True)
        uses = VARLEN if attention == VARLEN else "sdpa" if kernel else "eager"
        assert model.config._attn_implementation == uses
        loss = response_loss(model, dict(batch))
        torch.testing.assert_close(loss, sum(losses), rtol=1e-5, atol=1e-5)
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "family",
    [
        family
        for family in [*sorted(FAMILIES), *OTHERS]
        if CONFIG_MAPPING[family] in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    ],
)
def test_scoring(checkpoint, family):
    path = checkpoint(family, AutoModelForSequenceClassification)
    prompt = "Tell me about the otter."
    # Of one word up to blocks of their own.
    responses = [" ".join((WORDS * 9)[:n]) for n in (1, 5, 9, 40, 2)]
    model = load_scorer(path, tokens_per_batch=100)
    tokenizer = AutoTokenizer.from_pretrained(path)
    plain = reference(path, AutoModelForSequenceClassification)
    with torch.no_grad():
        expected = np.stack(
            [
                plain(**tokenizer(reward_input(prompt, response), return_tensors="pt")).logits[0]
                for response in responses
            ]
        )
    assert np.ptp(expected) > 0.1
    for tokens, kernel in ((60, False), (1000, False), (60, True), (1000, True)):
        if kernel and not (fits_kernel(plain.config) and model.packed):
            continue
        model.most_tokens, model.kernel = tokens, kernel
        [scores] = model.score_chunk([(prompt, responses)])
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert model.packed == (family in FAMILIES)


def test_what_an_implementation_leaves_out_is_refused():
    capped, sinks, plain = (make_config(name) for name in ("gemma2", "gpt_oss", "llama"))
    for asked in ("sdpa", VARLEN):
        with pytest.raises(InputError, match="leaves out its soft-capping; set trainer"):
            choose_attention(capped, asked, packed=True)
    with pytest.raises(InputError, match="sdpa leaves out its sinks"):
        choose_attention(sinks, "sdpa")
    for config in (capped, sinks):
        assert choose_attention(config) == choose_attention(config, "eager") == "eager"
    assert choose_attention(plain) == "sdpa"
    assert choose_attention(plain, "flash_attention_2", packed=True) == "flash_attention_2"


@pytest.mark.parametrize("family", OTHERS)
def test_packed_rows_that_would_see_each_other_are_refused(family):
    with pytest.raises(InputError, match=rf"{family} keeps packed rows apart.*trainer\.packing"):
        choose_attention(make_config(family), packed=True)


def test_the_kernel_is_for_packed_rows_in_16_bits_that_it_can_do():
    chosen = {
        name: choose_attention(config, packed=True, half=True)
        for name, config in {
            "plain": make_config("llama"),
            "window": make_config("mistral"),
            "wide": make_config("llama", head_dim=512),
            "odd": make_config("llama", head_dim=12),
            "dropout": make_config("llama", attention_dropout=0.1),
            "caps": make_config("gemma2"),
        }.items()
    }
    slow = dict.fromkeys(("wide", "odd", "dropout"), "sdpa") | {"caps": "eager"}
    assert chosen == {"plain": VARLEN, "window": VARLEN, **slow}
    plain = make_config("llama")
    assert choose_attention(plain, packed=True, half=False) == "sdpa"
    assert choose_attention(plain, packed=False, half=True) == "sdpa"
    # RowEnds that bring no lengths keep a mask.
    assert choose_attention(plain, VARLEN, packed=False) == "sdpa"


def test_autocast_gives_the_kernel_one_type():
    """Rotary embeddings of float32 states leave queries and keys in float32, and values not."""
    query, value = torch.randn(6, 2, 8), torch.randn(6, 1, 8)
    ends = torch.tensor([0, 2, 6], dtype=torch.int32)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend_rows(query, value, value.bfloat16(), RowEnds(ends, ends, 4, 4))
    assert found.dtype == torch.bfloat16
    assert attend_rows(query, value, value, RowEnds(ends, ends, 4, 4)).dtype == torch.float32
