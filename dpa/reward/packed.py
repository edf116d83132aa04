"""A decoder's forward pass over rows of any lengths without padding, that shares what rows share.

Rows are concatenated into one sequence, so that all layers but attention see useful tokens only.
A family's prefix is a row of its own; the rows after it attend to the keys and values that it left,
in whatever later pass they come.

Attention goes block by block: a block is one row, or several short ones of the same family under a
mask. Where the GPU has a kernel for rows of any lengths (dpa.attention) it goes in one call a layer
instead, for which each row's past is copied to it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from dpa.attention import RowEnds, attend_rows

NAME = "dpa_packed"
#: Short rows of a family share a block up to this many tokens: fewer kernels for more arithmetic.
BLOCK_TOKENS = 128
#: Under a mask so many tokens at a time look back: kernels do not leave out what a mask hides.
SLICE_TOKENS = 256
#: One call takes at most so many keys for each query of a pass: they are copies.
KEYS_PER_QUERY = 4

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


@dataclass
class Call:
    """Rows of a pass that attention takes at once: which queries, and the places of their keys."""

    queries: slice
    keys: Tensor
    rows: RowEnds


@dataclass
class Calls:
    """A pass for the kernel. Keys are found in the earlier prefixes' and then the pass's own."""

    earlier: list[Kept] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    #: The last prefix of the pass, which rows of the next one may go on with, and its place.
    keep: Kept | None = None
    kept: slice = field(default_factory=lambda: slice(0))


def calls_of(work: Pass, device: torch.device) -> Calls:
    """A pass's attention in as few calls as KEYS_PER_QUERY allows, mostly in one."""
    own = {id(block.keep) for block in work.blocks if block.keep is not None}
    found, offset = Calls(), 0
    places: dict[int, int] = {}  # of prefixes among the keys
    for block in work.blocks:
        if block.prefix is not None and id(block.prefix) not in own | places.keys():
            places[id(block.prefix)] = offset
            offset += block.before
            found.earlier.append(block.prefix)
    rows: list[tuple[int, np.ndarray]] = []  # tokens, places of keys
    for block in work.blocks:
        place = offset + block.start
        if block.keep is not None:
            places[id(block.keep)] = place
            found.keep, found.kept = block.keep, slice(place, place + block.tokens)
        past = np.arange(block.before) + places.get(id(block.prefix), 0)
        for tokens in block.lengths:
            rows.append((tokens, np.concatenate([past, np.arange(place, place + tokens)])))
            place += tokens
    most, start = KEYS_PER_QUERY * len(work.ids), 0
    for some in _groups(rows, most):
        queries = np.cumsum([0, *(tokens for tokens, _ in some)])
        keys = np.cumsum([0, *(len(keys) for _, keys in some)])
        found.calls.append(
            Call(
                slice(start, start + int(queries[-1])),
                torch.from_numpy(np.concatenate([keys for _, keys in some])).to(device),
                RowEnds(
                    torch.from_numpy(queries.astype(np.int32)).to(device),
                    torch.from_numpy(keys.astype(np.int32)).to(device),
                    int(np.diff(queries).max()),
                    int(np.diff(keys).max()),
                ),
            )
        )
        start += int(queries[-1])
    return found


def _groups(
    rows: list[tuple[int, np.ndarray]], most: int
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Consecutive rows with at most so many keys together, or one row with more."""
    some: list[tuple[int, np.ndarray]] = []
    held = 0
    for row in rows:
        if some and held + len(row[1]) > most:
            yield some
            some, held = [], 0
        some.append(row)
        held += len(row[1])
    yield some


def last_hidden_states(backbone: Any, work: Pass, *, kernel: bool = False) -> Tensor:
    """(rows, hidden) states of the rows' last tokens, of a backbone with the attention below.

    With `kernel` attention goes in calls instead of blocks.
    """
    device = backbone.device
    output = backbone(
        torch.tensor([work.ids], device=device),
        position_ids=torch.tensor([work.positions], device=device),
        use_cache=False,
        packed_blocks=work.blocks,
        packed_calls=calls_of(work, device) if kernel else None,
    )
    return output.last_hidden_state[0, torch.tensor(work.ends, dtype=torch.long, device=device)]


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    packed_blocks: Sequence[Block],
    packed_calls: Calls | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (1, heads, tokens, width) to (1, tokens, heads, width)."""
    assert ignored.get("s_aux") is None, "sinks: see dpa.attention"
    if packed_calls is not None:
        return _attend_in_calls(module, query, key, value, packed_calls, scaling, sliding_window)
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


def _attend_in_calls(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    work: Calls,
    scaling: float | None,
    window: int | None,
) -> tuple[Tensor, None]:
    """As `attention`."""
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    if work.earlier:
        keys, values = zip(*(prefix[module.layer_idx] for prefix in work.earlier), strict=True)
        key, value = torch.cat([*keys, key]), torch.cat([*values, value])
    if work.keep is not None:
        # A copy: a view would hold the whole pass's keys in memory.
        work.keep[module.layer_idx] = (key[work.kept].clone(), value[work.kept].clone())
    seen = [
        attend_rows(
            query[call.queries],
            key.index_select(0, call.keys),
            value.index_select(0, call.keys),
            call.rows,
            scale=scaling,
            window=window,
        )
        for call in work.calls
    ]
    return torch.cat(seen)[None], None


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
