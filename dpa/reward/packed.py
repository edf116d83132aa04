"""A decoder's forward pass over rows of any lengths without padding, that shares what rows share.

Rows are concatenated into one sequence, so that all layers but attention see useful tokens only.
Attention goes block by block: a block is one row, or several short ones of the same family under a
mask. A family's prefix is a row of its own; the rows after it attend to the keys and values that
it left, in whatever later pass they come. Works with every model of transformers whose attention
goes through its AttentionInterface.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "dpa_packed"
#: Short rows of a family share a block up to this many tokens: fewer kernels for more arithmetic.
BLOCK_TOKENS = 128
#: Under a mask so many tokens at a time look back: kernels do not leave out what a mask hides.
SLICE_TOKENS = 256

#: Keys and values of a prefix, by layer.
Kept = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Family:
    """Distinct inputs with a common beginning, and what follows in each; `rows` are their places.

    Without a prefix the rests are whole inputs.
    """

    prefix: list[int]
    rests: list[list[int]]
    rows: list[int]


@dataclass
class Block:
    """Consecutive tokens of a pass that attend to each other, and to a prefix of before."""

    start: int
    lengths: list[int]
    #: How long the prefix before it is, and where its keys and values are.
    before: int = 0
    prefix: Kept | None = None
    #: Where the block's own keys and values go, if it is a prefix.
    keep: Kept | None = None
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def is_plain(self, window: int | None) -> bool:
        """Whether each token sees the prefix and all of the block up to itself."""
        whole = window is None or window >= self.before + max(self.lengths)
        return whole and len(self.lengths) == 1

    def mask(self, window: int | None, device: torch.device) -> Tensor:
        """True where a token (first axis) sees another, the prefix's first."""
        if window not in self.masks:
            self.masks[window] = self._mask(window).to(device)
        return self.masks[window]

    def _mask(self, window: int | None) -> Tensor:
        position = self.before + torch.cat([torch.arange(length) for length in self.lengths])
        owner = torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths))
        distance = position[:, None] - torch.cat([torch.arange(self.before), position])
        seen = distance >= 0
        if window is not None:
            seen &= distance < window
        seen[:, self.before :] &= owner[:, None] == owner
        return seen


@dataclass
class Pass:
    """What one forward pass computes: `ends` are the rows' last tokens, `rows` their places."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    block_tokens: int = BLOCK_TOKENS

    def add_prefix(self, ids: list[int]) -> Kept:
        kept: Kept = {}
        self._add(ids, 0)
        self.blocks.append(Block(len(self.ids) - len(ids), [len(ids)], keep=kept))
        return kept

    def add_row(self, row: int, ids: list[int], before: int, prefix: Kept | None) -> None:
        self._add(ids, before)
        self.ends.append(len(self.ids) - 1)
        self.rows.append(row)
        last = self.blocks[-1] if self.blocks else None
        if (
            last is not None
            and last.keep is None
            and last.prefix is prefix
            and last.tokens + len(ids) <= self.block_tokens
        ):
            last.lengths.append(len(ids))
        else:
            self.blocks.append(Block(len(self.ids) - len(ids), [len(ids)], before, prefix))

    def _add(self, ids: list[int], before: int) -> None:
        self.ids += ids
        self.positions += range(before, before + len(ids))


def passes(
    families: Iterable[Family], most_tokens: int, block_tokens: int = BLOCK_TOKENS
) -> Iterator[Pass]:
    """Passes of at most `most_tokens` tokens, or of one row that is longer.

    A family's rows come by length, so that the short ones share blocks.
    """
    current = Pass(block_tokens=block_tokens)

    def room(tokens: int) -> Iterator[Pass]:
        nonlocal current
        if current.ids and len(current.ids) + tokens > most_tokens:
            yield current
            current = Pass(block_tokens=block_tokens)

    for family in families:
        before, kept = len(family.prefix), None
        if before:
            yield from room(before)
            kept = current.add_prefix(family.prefix)
        for i in sorted(range(len(family.rests)), key=lambda i: (len(family.rests[i]), i)):
            yield from room(len(family.rests[i]))
            current.add_row(family.rows[i], family.rests[i], before, kept)
    if current.ids:
        yield current


def last_hidden_states(backbone: Any, work: Pass) -> Tensor:
    """(rows, hidden) states of the rows' last tokens. The backbone went through `prepare`."""
    device = backbone.device
    output = backbone(
        torch.tensor([work.ids], device=device),
        position_ids=torch.tensor([work.positions], device=device),
        use_cache=False,
        packed_blocks=work.blocks,
    )
    return output.last_hidden_state[0, torch.tensor(work.ends, dtype=torch.long, device=device)]


def use_packed_attention(model: Any) -> bool:
    """Have a model use the attention below; False if it cannot."""
    if not getattr(model, "_supports_attention_backend", False):
        return False
    model.set_attn_implementation(NAME)
    return True


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    packed_blocks: Sequence[Block],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (1, heads, tokens, width) to (1, tokens, heads, width)."""
    heads, width = query.shape[1], value.shape[-1]
    output = query.new_empty(1, query.shape[2], heads, width)
    for block in packed_blocks:
        here = slice(block.start, block.start + block.tokens)
        keys, values = key[:, :, here], value[:, :, here]
        if block.keep is not None:
            # A copy: a view would hold the whole pass's keys in memory.
            block.keep[module.layer_idx] = (keys.clone(), values.clone())
        if block.prefix is not None:
            kept_keys, kept_values = block.prefix[module.layer_idx]
            keys = torch.cat([kept_keys, keys], dim=2)
            values = torch.cat([kept_values, values], dim=2)
        seen = _attend(query[:, :, here], keys, values, block, scaling, sliding_window, softcap)
        output[:, here] = seen.transpose(1, 2)
    return output, None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    block: Block,
    scaling: float | None,
    window: int | None,
    cap: float | None,
) -> Tensor:
    """(1, heads, tokens, width) of one block."""
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if cap is None and block.is_plain(window):
        if not block.before:
            return scaled_dot_product_attention(query, key, value, is_causal=True, **options)
        if query.device.type == "cuda":  # has kernels that need no mask in memory
            lower_right = causal_lower_right(block.tokens, block.before + block.tokens)
            return scaled_dot_product_attention(query, key, value, attn_mask=lower_right, **options)
    if cap is None:
        mask, parts = block.mask(window, query.device), []
        for start in range(0, block.tokens, SLICE_TOKENS):
            here = slice(start, min(start + SLICE_TOKENS, block.tokens))
            seen = slice(block.before + here.stop)
            parts.append(
                scaled_dot_product_attention(
                    query[:, :, here],
                    key[:, :, seen],
                    value[:, :, seen],
                    attn_mask=mask[here, seen],
                    **options,
                )
            )
        return torch.cat(parts, dim=2)
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / cap) * cap
    scores = scores.masked_fill(~block.mask(window, query.device), torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


AttentionInterface.register(NAME, attention)
