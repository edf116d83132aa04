"""Attention that honours a model's configuration: in training, sampling and scoring alike.

transformers' implementations leave out silently what they do not know. sdpa drops soft-capping
(Gemma 2), and an implementation that gets no masks drops whatever a model has in its masks only.
Here an implementation is chosen that does what eager attention does, or the model is refused.

`varlen` is ours: rows of any lengths, one after another in one sequence, by FlashAttention's kernel
in torch, which needs neither masks nor padding. Where that kernel cannot run, it goes row by row.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface

from dpa.errors import InputError

VARLEN = "varlen"

#: Architectures (`model_type`) that tell attention all it must know (windows, caps), so that it
#: needs no mask, and that keep packed rows apart. Each is tested (tests/unit/test_attention.py).
FAMILIES = frozenset(
    """
    arcee cohere cohere2 ernie4_5 exaone4 gemma gemma2 gemma3_text glm glm4 gpt2 gpt_neox
    granite granitemoe hunyuan_v1_dense llama ministral ministral3 mistral mixtral olmo
    olmo2 olmo3 olmoe phi phi3 qwen2 qwen3 qwen3_moe seed_oss smollm3 starcoder2
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class RowEnds:
    """Where rows of queries and of keys begin and end: (rows + 1,) int32, and the longest of each.

    A row's last query is at the place of its last key; the keys before its queries are its past.
    """

    queries: Tensor
    keys: Tensor
    longest_queries: int
    longest_keys: int


def choose_attention(
    config: Any, asked: str = "auto", *, packed: bool = False, half: bool = False
) -> str:
    """The name of an implementation for transformers that does all that a model's `config` says.

    `asked` is `auto` or a name; `packed` says that several rows share a sequence, `half` that a GPU
    computes in 16 bits. Raises InputError for a name that would leave something out, and for packed
    rows of an architecture that is not known to keep them apart.
    """
    name = getattr(config, "name_or_path", "") or config.model_type
    if packed and config.model_type not in FAMILIES:
        raise InputError(
            f"{name}: whether {config.model_type} keeps packed rows apart is not known; set "
            "trainer.packing to false"
        )
    special = _beyond_sdpa(config)
    if asked == "auto" or (asked == VARLEN and not packed):
        if packed and half and fits_kernel(config):
            return VARLEN
        return "eager" if special else "sdpa"
    if special and asked in ("sdpa", VARLEN):
        raise InputError(f"{name}: {asked} leaves out its {special}; set trainer.attention to auto")
    return asked


def fits_kernel(config: Any) -> bool:
    """Whether FlashAttention's kernel in torch can do what a model's attention does.

    It has causal rows, windows and grouped queries, but neither caps, sinks nor dropout; widths of
    heads are multiples of 8 up to 256, the same for keys and values.
    """
    text = config.get_text_config(decoder=True)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    dropout = getattr(text, "attention_dropout", 0) or getattr(text, "attn_pdrop", 0)
    known = needs_no_mask(config) and not _beyond_sdpa(config) and not dropout
    return known and width <= 256 and width % 8 == 0


def needs_no_mask(config: Any) -> bool:
    """Whether a model's attention can be computed without the model's masks."""
    return config.model_type in FAMILIES


def _beyond_sdpa(config: Any) -> str:
    """What sdpa would leave out, in words; empty if nothing."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "attn_logit_softcapping", None) is not None:
        return "soft-capping"
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    # transformers knows of the rest: attention sinks (gpt-oss), biases by distance (Bloom).
    return "" if kind is None or kind._supports_sdpa else "sinks or biases"


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: RowEnds,
    *,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Causal attention within rows: (queries, heads, width) for keys and values of any fewer heads.

    A token sees its row's `window` last tokens, itself included, or all up to itself.
    """
    # Under autocast the kernel is not cast for, and rotary embeddings leave float32 behind.
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    query, key, value = (states.to(dtype) for states in (query, key, value))
    half = dtype in (torch.bfloat16, torch.float16)
    grouped = query.shape[1] != key.shape[1]
    if device == "cuda" and half and not dropout:
        found: Any = varlen_attn(
            query,
            key,
            value,
            rows.queries,
            rows.keys,
            rows.longest_queries,
            rows.longest_keys,
            scale=scale,
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=grouped,
        )
        return found
    parts = []
    ends = zip(rows.queries.tolist(), rows.keys.tolist(), strict=True)
    for (start, first), (end, last) in pairwise(ends):
        plain = end - start == last - first and (window is None or window >= last - first)
        part = scaled_dot_product_attention(
            query[start:end].transpose(0, 1)[None],
            key[first:last].transpose(0, 1)[None],
            value[first:last].transpose(0, 1)[None],
            attn_mask=None if plain else _seen(end - start, last - first, window, device),
            is_causal=plain,
            dropout_p=dropout,
            scale=scale,
            enable_gqa=grouped,
        )
        parts.append(part[0].transpose(0, 1))
    return torch.cat(parts)


def _seen(queries: int, keys: int, window: int | None, device: str) -> Tensor:
    """(queries, keys) True where the last tokens of a row see its tokens."""
    position = torch.arange(keys, device=device)
    distance = position[keys - queries :, None] - position
    return (distance >= 0) & (distance < (keys if window is None else window))


def varlen_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor,
    max_length_q: int,
    max_length_k: int,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface for packed rows as TRL makes them, one sequence of all:
    (1, heads, tokens, width) to (1, tokens, heads, width)."""
    left_out = [name for name in ("softcap", "s_aux") if others.get(name) is not None]
    assert not left_out, left_out  # see choose_attention
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    rows = RowEnds(cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k)
    seen = attend_rows(
        query, key, value, rows, scale=scaling, window=sliding_window, dropout=dropout
    )
    return seen[None], None


AttentionInterface.register(VARLEN, varlen_attention)
