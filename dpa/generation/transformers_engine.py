"""Sampling with transformers and a loop of our own: fast for tiny models on a CPU.

`model.generate` decodes until the longest response of a batch is done, knows no seeds per row and
prefills a prompt once per sample. Here a prompt is prefilled once and its key-value cache is copied
to its samples, finished rows leave the batch, waiting rows take their place, and the cache grows in
place.

A batch never spans two chunks: floating-point results depend (in the last bits) on the shape of
the batch, and which chunks are neighbours depends on the number of shards.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache, CacheLayerMixin

from dpa.attention import choose_attention, needs_no_mask
from dpa.errors import InputError
from dpa.generation.engine import (
    Chunk,
    ChunkResult,
    Completion,
    EngineSettings,
    Request,
    decode_completion,
)
from dpa.models import load_checkpoint_config, load_model
from dpa.precision import computing_dtype

#: Slots by which a cache grows when it is full. A copy of the cache costs as much as some steps.
GROWTH = 16
#: Most prompt tokens in one forward pass; bounds the memory of prefilling.
MOST_PREFILL_TOKENS = 16384
#: The batch is repacked when this share of its rows is free: repacking copies the cache.
REPACK_SHARE = 0.2
#: Probabilities are turned into whole multiples of 1 / RESOLUTION before they are summed.
RESOLUTION = 2.0**40


def uniforms(seeds: Iterable[int], steps: int) -> np.ndarray:
    """(seeds, steps) numbers in [0, 1): number t of a seed is a function of the two alone.

    Output t of the splitmix64 generator started at the mixed seed (Steele et al., 2014,
    doi:10.1145/2714064.2660195).
    """
    start = _mix(np.fromiter(seeds, np.uint64))[:, None]
    increments = np.arange(1, steps + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    # 52 bits: the largest product u * total then stays below total (see `draw_tokens`).
    return (_mix(start + increments) >> np.uint64(12)) * 2.0**-52


def _mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's output function; a bijection of 64-bit numbers."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def draw_tokens(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> torch.Tensor:
    """(rows,) tokens drawn from softmax(logits / temperature) by inverting the distribution.

    `logits` is (rows, vocabulary), `uniform` (rows,) in [0, 1), float64. Temperature 0 takes the
    likeliest token, the first of equals. Sums of whole numbers are exact, hence the same in
    whatever order a device adds them up.
    """
    if temperature == 0:
        return logits.argmax(-1)
    weights = (torch.softmax(logits.float() / temperature, -1) * RESOLUTION).long()
    cumulative = weights.cumsum(-1)
    target = (uniform[:, None] * cumulative[:, -1:]).long()
    return torch.searchsorted(cumulative, target, right=True)[:, 0]


class _Layer(CacheLayerMixin):
    """One layer's keys and values, (rows, heads, slots, width), in a buffer with room to grow."""

    is_sliding = False
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.used = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, heads, _, _ = key_states.shape
        self.keys = key_states.new_empty(rows, heads, 0, key_states.shape[-1])
        self.values = value_states.new_empty(rows, heads, 0, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.used = self.used, self.used + key_states.shape[-2]
        if self.used > self.keys.shape[-2]:
            more = (0, 0, 0, self.used + GROWTH - self.keys.shape[-2])
            # Zeros, not whatever was in memory: 0 times NaN is NaN, even under a mask.
            self.keys, self.values = pad(self.keys, more), pad(self.values, more)
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def get_seq_length(self) -> int:
        return self.used

    def get_max_length(self) -> int:
        return -1

    def repack(self, rows: torch.Tensor, first: int) -> None:
        """Keep these rows, and the slots from `first` on."""
        self.keys = self.keys[:, :, first:].index_select(0, rows)
        self.values = self.values[:, :, first:].index_select(0, rows)
        self.used -= first

    def append(self, other: "_Layer") -> None:
        """Add the other layer's rows (no longer than ours), aligned to the right."""
        left = self.used - other.used
        around = (0, 0, left, self.keys.shape[-2] - self.used)
        for name in ("keys", "values"):
            theirs = pad(getattr(other, name)[:, :, : other.used], around)
            setattr(self, name, torch.cat([getattr(self, name), theirs]))


class _Cache(Cache):
    """The layers of a batch."""

    layers: list[_Layer]  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_Layer)


class _Batch:
    """Rows that are decoded together, one sample each.

    `row` (rows,) is the sample's place in the chunk; `mask` (rows, slots) tells which slots of the
    cache hold its tokens; `logits` (rows, vocabulary) predict token number `age` of its response,
    which becomes `token`; `start` is the prompt's length; `alive` ends with the response.
    """

    state = ("row", "mask", "start", "age", "token", "alive")

    def __init__(
        self,
        cache: _Cache,
        row: torch.Tensor,
        mask: torch.Tensor,
        start: torch.Tensor,
        logits: torch.Tensor,
    ) -> None:
        self.cache, self.logits = cache, logits
        self.row, self.mask, self.start = row, mask, start
        self.age, self.token = torch.zeros_like(row), torch.zeros_like(row)
        self.alive = torch.ones_like(row, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.row)

    def repack(self) -> None:
        """Drop complete rows, and slots that no other row uses. The logits are not kept."""
        rows = self.alive.nonzero()[:, 0]
        for name in self.state:
            setattr(self, name, getattr(self, name).index_select(0, rows))
        first = int(self.mask.any(0).int().argmax())
        self.mask = self.mask[:, first:]
        for layer in self.cache.layers:
            layer.repack(rows, first)

    def append(self, other: "_Batch") -> None:
        """Take in the rows of another batch whose sequences are no longer than ours."""
        other.mask = pad(other.mask, (self.mask.shape[1] - other.mask.shape[1], 0))
        for name in (*self.state, "logits"):
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))
        for ours, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            ours.append(theirs)


class TransformersEngine:
    """A policy in transformers, on the GPU if there is one.

    `model` is one that is in memory already: a policy in training, which is sampled as it is then.
    """

    def __init__(self, settings: EngineSettings, model: Any = None) -> None:
        self.settings, self.chat = settings, settings.chat
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if model is None:
            config = load_checkpoint_config(settings.policy)
            attention = choose_attention(config)
            model = load_model(
                AutoModelForCausalLM,
                settings.policy,
                dtype=settings.dtype or computing_dtype(config),
                attn_implementation=attention,
                device_map=self.device,
            ).eval()
        else:
            attention = model.config._attn_implementation
        self.model = model
        #: Whether the model makes its masks itself: for windows, and what sdpa cannot do.
        self.masks = (
            _is_windowed(self.model, settings)
            or attention != "sdpa"
            or not needs_no_mask(self.model.config)
        )
        self.end_tokens = torch.tensor(settings.end_tokens, device=self.device)

    def generate(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """Yield each chunk's completions, in order: per request, one per seed."""
        for chunk in chunks:
            yield [list(map(self.completion, samples)) for samples in self.sample_tokens(chunk)]

    def sample_tokens(self, chunk: Chunk) -> list[list[list[int]]]:
        """The tokens of a chunk's samples, request by request, their end tokens included."""
        rows = iter(self._generate_chunk(chunk))
        return [[_tokens_of(next(rows)) for _ in request.seeds] for request in chunk]

    def close(self) -> None:
        """Free the model."""
        del self.model

    def completion(self, ids: list[int]) -> Completion:
        """A sample's tokens as a completion."""
        return decode_completion(
            self.settings, ids, "stop" if ids and ids[-1] in self.settings.end_tokens else "length"
        )

    def stream(self, request: Request) -> Iterator[Completion]:
        """Yield a sample's response as far as it goes, token by token, and whole in the end."""
        for tokens in self._grow([request]):
            if tokens[0, 0] >= 0:
                yield self.completion(_tokens_of(tokens[0].cpu().numpy()))

    def _generate_chunk(self, chunk: Chunk) -> np.ndarray:
        """(samples, max_new_tokens) tokens of a chunk's samples, -1 after each one's last."""
        for tokens in self._grow(chunk):  # noqa: B007 (the last are wanted)
            pass
        return tokens.cpu().numpy()

    @torch.inference_mode()
    def _grow(self, chunk: Chunk) -> Iterator[torch.Tensor]:
        """Yield the tokens of `_generate_chunk`, first none, and after each step what there is."""
        steps = self.settings.max_new_tokens
        seeds = [seed for request in chunk for seed in request.seeds]
        uniform = torch.from_numpy(uniforms(seeds, steps)).to(self.device)
        tokens = torch.full((len(seeds), steps), -1, device=self.device)
        owners = [number for number, request in enumerate(chunk) for _ in request.seeds]
        # Longest prompts first: rows that join later then fit into the slots that are there.
        waiting = sorted(
            enumerate(owners), key=lambda sample: len(chunk[sample[1]].prompt_ids), reverse=True
        )
        batch: _Batch | None = None
        yield tokens
        while batch or waiting:
            batch, waiting = self._refill(batch, waiting, chunk)
            batch = self._step(batch, tokens, uniform)
            yield tokens

    def _refill(
        self, batch: _Batch | None, waiting: list[tuple[int, int]], chunk: Chunk
    ) -> tuple[_Batch, list[tuple[int, int]]]:
        """Let waiting samples, (row, request) pairs, into the batch; returns it and who waits."""
        while waiting and (room := self.settings.rows_per_batch - len(batch or ())) > 0:
            budget = max(1, MOST_PREFILL_TOKENS // len(chunk[waiting[0][1]].prompt_ids))
            owners = list(dict.fromkeys(owner for _, owner in waiting[:room]))[:budget]
            places = {owner: place for place, owner in enumerate(owners)}
            taken = [(row, places[owner]) for row, owner in waiting[:room] if owner in places]
            waiting = waiting[len(taken) :]
            newcomers = self._prefill([chunk[owner].prompt_ids for owner in owners], taken)
            if batch is None:
                batch = newcomers
            else:
                batch.append(newcomers)
        assert batch is not None
        return batch, waiting

    def _prefill(self, prompts: list[list[int]], samples: list[tuple[int, int]]) -> _Batch:
        """A batch of samples, (row, prompt) pairs, from one pass over their distinct prompts."""
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for number, prompt in enumerate(prompts):
            ids[number, longest - len(prompt) :] = torch.tensor(prompt)
            mask[number, longest - len(prompt) :] = True
        ids, mask = ids.to(self.device), mask.to(self.device)
        cache = _Cache()
        logits = self.model(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if not logits.isfinite().all():
            raise InputError(
                f"{self.settings.policy.path}: predicts NaN or infinity; its training has diverged"
            )
        row, place = torch.tensor(samples, device=self.device).unbind(1)
        for layer in cache.layers:
            layer.repack(place, 0)
        return _Batch(cache, row, mask[place], mask.sum(1)[place], logits[place])

    def _step(self, batch: _Batch, tokens: torch.Tensor, uniform: torch.Tensor) -> _Batch | None:
        """Draw each row's next token and predict the one after; None once all are complete."""
        place = (batch.row, batch.age)
        batch.token = draw_tokens(batch.logits, uniform[place], self.settings.temperature)
        # A complete row stays in the batch until the next repacking: it keeps its last token.
        tokens[place] = torch.where(batch.alive, batch.token, tokens[place])
        self.settings.on_tokens(int(batch.alive.sum()))
        batch.alive &= torch.isin(batch.token, self.end_tokens, invert=True)
        batch.alive &= batch.age + 1 < self.settings.max_new_tokens
        batch.age += batch.alive
        alive = int(batch.alive.sum())
        if not alive:
            return None
        if len(batch) - alive >= REPACK_SHARE * len(batch):
            batch.repack()
        batch.mask = pad(batch.mask, (0, 1), value=True)
        batch.logits = self.model(
            input_ids=batch.token[:, None],
            # Ready for the attention kernel, unless the model has more to say.
            attention_mask=batch.mask.long() if self.masks else batch.mask[:, None, None],
            position_ids=(batch.start + batch.age - 1)[:, None],
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return batch


def _tokens_of(row: np.ndarray) -> list[int]:
    """A row of `_generate_chunk` without what stands after its last token."""
    return row[row >= 0].tolist()


def _is_windowed(model: Any, settings: EngineSettings) -> bool:
    """Whether some layer sees only a window shorter than `max_model_len`.

    Raises InputError when the model keeps anything else than keys and values of its tokens.
    """
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ())
    unknown = kinds - {"full_attention", "sliding_attention"}
    if unknown or getattr(config, "num_kv_shared_layers", None):
        raise InputError(
            f"{settings.policy.path}: the transformers engine cannot decode its layers "
            f"({', '.join(sorted(unknown)) or 'shared caches'}); set sampling.engine to vllm"
        )
    window = getattr(config, "sliding_window", None)
    return window is not None and window < settings.max_model_len
