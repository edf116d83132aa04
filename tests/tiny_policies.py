"""Tiny random policies of any architecture, for tests of sampling."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, MistralConfig

from dpa.quickstart.base_model import train_tokenizer

LINES = [
    "Describe the otter. What does the badger eat? Where does the fox live?",
    "The otter lives close to rivers. The badger often feeds on roots. The fox grew up in Norway.",
    "Sure, I can help. Nature is full of wonders.",
]


def make_tokenizer():
    """A byte-level BPE tokenizer with chat template and distinct pad, bos and eos."""
    return train_tokenizer(LINES * 5, 500)


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
