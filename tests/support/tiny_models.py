"""Tiny random models of several architectures: reward models, and policies that chat."""

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
    GenerationConfig,
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

SHAPE = {
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
    return make(**SHAPE | options | extra, vocab_size=len(make_tokenizer()) + 8)


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


def make_chat_reward_model(folder: Path) -> str:
    """A reward model of others: with a chat template of its own."""
    path = make_reward_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    )
    tokenizer.save_pretrained(path)
    return path


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


# --- Policies --------------------------------------------------------------------------------

CHAT_LINES = [
    "Describe the otter. What does the badger eat? Where does the fox live?",
    "The otter lives close to rivers. The badger often feeds on roots. The fox grew up in Norway.",
    "Sure, I can help. Nature is full of wonders.",
]


def make_chat_tokenizer():
    """A byte-level BPE tokenizer with chat template and distinct pad, bos and eos."""
    return train_tokenizer(CHAT_LINES * 5, 500)


def make_policy(
    folder: Path, tokenizer, config=None, *, end_bias: float = 1.5, ends: list[int] | None = None
) -> Path:
    """A policy folder with seeded random weights that ends its responses after some 20 tokens.

    The default architecture is Mistral's, small, with heads that vLLM can run on a CPU; `config` is
    another one. `end_bias` pulls towards the end token; `ends` are other end tokens than the
    tokenizer's.
    """
    config = config or MistralConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=None,
        initializer_range=0.2,
    )
    config.update(
        {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 512,
            # Gemma has no other head than its embeddings.
            "tie_word_embeddings": config.model_type == "gemma",
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        # What all embeddings have in common shows in every hidden state: it can vote for the end.
        common = 0.3 * torch.randn(config.hidden_size)
        model.get_input_embeddings().weight += common
        if config.tie_word_embeddings:
            # Or it would repeat its last token for ever: that is what its embedding predicts best.
            model.model.norm.weight.normal_(0, 2)
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight *= 8
                layer.mlp.down_proj.weight *= 8
        else:
            model.get_output_embeddings().weight[tokenizer.eos_token_id] += end_bias * common
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
