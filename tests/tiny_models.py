"""Tiny random models of several architectures, for tests of the reward model."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from dpa.quickstart.base_model import train_tokenizer
from dpa.text.prompts import Conversation, reward_input

NAMES = ["quality", "length", "style"]
SENTENCE = "the otter swims far and eats fish near a river while badgers dig deep holes"
WORDS = SENTENCE.split()

_SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
#: With and without tied embeddings, sliding window and soft-capping.
ARCHITECTURES = {
    "mistral": (MistralConfig, {"sliding_window": None}),
    "mistral-window": (MistralConfig, {"sliding_window": 9}),
    "llama": (LlamaConfig, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, {}),
    "gemma": (GemmaConfig, {}),
    "gemma2": (Gemma2Config, {"query_pre_attn_scalar": 8, "sliding_window": 9}),
}


@cache
def make_tokenizer():
    """A byte-level tokenizer of 400-odd tokens."""
    return train_tokenizer([SENTENCE, "Tell me about the User: Assistant:"] * 5, 450)


def make_config(name: str, **extra) -> PretrainedConfig:
    """A tiny configuration with spare embeddings (Qwen's tokenizer class adds a token)."""
    make, options = ARCHITECTURES[name]
    return make(**_SHAPE | options | extra, vocab_size=len(make_tokenizer()) + 8)


def make_causal_lm(folder: Path, name: str = "mistral") -> str:
    """A causal LM folder with random weights."""
    torch.manual_seed(0)
    return _save(AutoModelForCausalLM.from_config(make_config(name)), folder)


def make_reward_model(
    folder: Path, name: str = "mistral", names: Sequence[str] = NAMES, **shape
) -> str:
    """A reward model folder with outputs `names` and random weights."""
    torch.manual_seed(0)
    config = make_config(name, num_labels=len(names), id2label=dict(enumerate(names)), **shape)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.mul_(100)  # scores of a size as on 0-100
    return _save(model, folder)


def _save(model, folder: Path) -> str:
    with torch.no_grad():  # larger than initialised, or all texts would score alike
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


class PlainModel:
    """The published snippet: one input at a time with plain transformers."""

    def __init__(self, path: str, **tokenizer_options):
        self.model = AutoModelForSequenceClassification.from_pretrained(path)
        self.tokenizer = AutoTokenizer.from_pretrained(path, **tokenizer_options)

    @torch.no_grad()
    def score(self, prompt: Conversation, response: str, **options) -> torch.Tensor:
        """(outputs,)"""
        text = reward_input(prompt, response)
        return self.model(**self.tokenizer(text, return_tensors="pt", **options)).logits[0]
