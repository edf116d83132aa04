"""Models of the check: the paper's shape, one that trains on one card, and small ones."""

from typing import Any

import torch

from benchmarks.gpu_check.rows import device, is_small, on_gpu
from benchmarks.models import make_tokenizer

#: Mistral 7B's.
SEVEN_BILLION = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
#: 2.0 billion parameters: with Adam's states in float32 they take 32 GB.
TWO_BILLION = {
    "vocab_size": 32000,
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 27,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def llama(shape: dict[str, int], **more: Any) -> Any:
    """A configuration of this shape, tiny in tests."""
    from transformers import LlamaConfig

    tokenizer = make_tokenizer()
    sizes = TINY | {"vocab_size": len(tokenizer)} if is_small() else shape
    return LlamaConfig(
        **{"vocab_size": len(tokenizer)} | sizes | more,
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def built(kind: Any, config: Any, dtype: torch.dtype) -> Any:
    """A model with random weights, made on the card."""
    torch.manual_seed(0)
    with torch.device(device()):
        return kind.from_config(config, dtype=dtype if on_gpu() else torch.float32)


def inner_weights(model: Any) -> int:
    """Weights that multiply every token: all but the embeddings, the head included once."""
    embeddings = model.get_input_embeddings().weight
    return sum(w.numel() for w in model.parameters() if w is not embeddings)
