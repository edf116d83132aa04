"""How likely a policy is to write given responses: one forward pass, no sampling."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from dpa.attention import choose_attention
from dpa.errors import InputError
from dpa.generation.engine import Answered
from dpa.models import AnyModel, ModelRef, load_checkpoint_config, load_model
from dpa.precision import computing_dtype


def batches_of(answered: Sequence[Answered], tokens_per_batch: int) -> list[list[int]]:
    """Rows by batch, the longest first; a batch has at most `tokens_per_batch` tokens, padding
    included, or one row."""
    lengths = [len(prompt) + len(response) for prompt, response in answered]
    waiting = sorted(range(len(answered)), key=lambda row: lengths[row], reverse=True)
    batches = []
    while waiting:
        count = max(1, tokens_per_batch // lengths[waiting[0]])
        batches.append(waiting[:count])
        waiting = waiting[count:]
    return batches


def log_probabilities(
    model: AnyModel, batches: Sequence[Sequence[Answered]], temperature: float
) -> Iterator[list[float]]:
    """The log-probability of each response after its prompt, at a temperature, batch by batch.

    A batch is one forward pass; its responses' logits are in memory as a whole. Without batches no
    model is loaded.

    As the transformers engine samples: in the same type, with padding on the left. Raises
    InputError when the model predicts NaN or infinity.
    """
    if not batches:
        return
    ref = ModelRef.of(model)
    config = load_checkpoint_config(ref)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_model(
        AutoModelForCausalLM,
        ref,
        dtype=computing_dtype(config),
        attn_implementation=choose_attention(config),
        device_map=device,
    ).eval()
    for batch in batches:
        found = _score_batch(loaded, batch, temperature)
        if not all(map(math.isfinite, found)):
            raise InputError(f"{ref.path}: predicts NaN or infinity; its training has diverged")
        yield found


@torch.inference_mode()
def _score_batch(model: Any, answered: Sequence[Answered], temperature: float) -> list[float]:
    """The log-probability of each response."""
    # The last token is predicted, and predicts nothing.
    inputs = [(prompt + response)[:-1] for prompt, response in answered]
    longest, width = max(map(len, inputs)), max(len(response) for _, response in answered)
    ids = torch.zeros(len(inputs), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(inputs):
        ids[row, longest - len(tokens) :] = torch.tensor(tokens)
        mask[row, longest - len(tokens) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=width,
    ).logits
    sums = []
    for (_, response), row in zip(answered, logits, strict=True):
        # A row at a time: in float32 the logits of all would be twice as large.
        scores = row[width - len(response) :].float() / temperature
        drawn = scores.gather(1, torch.tensor(response, device=scores.device)[:, None])[:, 0]
        sums.append(float((drawn - scores.logsumexp(-1)).sum(dtype=torch.float64)))
    return sums
