"""Whether a stage fits a GPU: its memory at peak, part by part.

Bytes, per GPU, for P parameters on N shards (N = 1 without sharding), T tokens in a forward pass,
hidden width h, L layers, vocabulary V, queries of width q = heads * head_dim, keys and values of
width k = kv_heads * head_dim, feed-forward width m:

Training (AdamW, float32 master weights, bfloat16 arithmetic), of t trained parameters (t = P, or
those of LoRA adapters):

- states       16 t / N + 2 (P - t) / N: weights 4, gradient 4, two moments 8; frozen weights 2
- gathered     2 P without sharding: autocast keeps 16-bit copies of the weights. With sharding two
               layers (one at work, one being fetched) and embeddings, 2 bytes a weight
- activations  with recomputation: what enters each layer, 2 T h L, and one layer's insides, 2 T w,
               w = 8 h + 2 q + 2 k + 5 m (norms, projections, attention, gated feed-forward, and
               gradients of the widest); without: 2 T w L. Attention's T x T scores are never
               stored (flash or memory-efficient kernels)
- loss         10 T V: 16-bit logits, their float32 copy and its gradient; 0 with a fused loss
- frozen       a reference policy (DPO, PPO) 4 P / N, a reward model (PPO) 2 P
- overhead     a constant

Example, by hand: Mistral-7B, P = 7.242e9, N = 8, rows of 4,096, 1 per GPU: states
16 x 7.242e9 / 8 = 14.48e9; gathered 2 x (2 x 218.1e6 + 262.1e6) = 1.40e9; activations
2 x 4096 x 4096 x 32 + 2 x 4096 x (8 x 4096 + 2 x 4096 + 2 x 1024 + 5 x 14336) = 1.07e9 + 0.94e9;
loss 10 x 4096 x 32000 = 1.31e9. Together 19.2e9 bytes, 17.9 GiB, and overhead: an A6000 of 48 GiB
holds it; without sharding 116e9 bytes of states fit no such GPU.

Sampling (vLLM): weights 2 P, a prefill pass of max(8192, longest sequence) tokens, 2 T w, and the
logits of as many sequences as it may decode at a time, 14 V each (16-bit, their float32 copy,
probabilities and noise), within `memory_share` of the GPU; what is left is cache, at 4 L k bytes a
token, and must hold the longest sequence. How many mean sequences it holds bounds the batch.

Scoring: weights 2 P, cache 4 L k T and insides 2 T w of a pass of T = tokens_per_batch.
"""

from typing import NamedTuple

from dpa.generation.vllm_engine import MAX_SEQUENCES, PREFILL_TOKENS
from dpa.plan.assumptions import Assumptions, Shape

GIB = 2**30


class Memory(NamedTuple):
    """GiB by part."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size:.1f}" for name, size in self.parts.items() if size >= 0.05)
        return f"{self.total:.1f} GiB ({parts})"


def inside_width(shape: Shape) -> int:
    """w of the module's docstring: numbers that a token has inside a layer."""
    q, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return 8 * shape.hidden + 2 * q + 2 * k + 5 * shape.intermediate


def training_memory(
    shape: Shape,
    assumptions: Assumptions,
    *,
    tokens: int,
    shards: int,
    recompute: bool,
    fused_loss: bool = False,
    trained: int | None = None,
    references: int = 0,
    reward: Shape | None = None,
) -> Memory:
    """A training process's memory at peak. `trained` counts LoRA's weights; None trains all."""
    everything = shape.parameters
    trained = everything if trained is None else trained
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    gathered = everything if shards == 1 else min(2 * shape.layer_matrices + embeddings, everything)
    layers = 1 if recompute else shape.layers
    inputs = shape.hidden * shape.layers if recompute else 0
    return _memory(
        states=(16 * trained + 2 * (everything - trained)) / shards,
        gathered=2 * gathered,
        activations=2 * tokens * (inputs + layers * inside_width(shape)),
        loss=0 if fused_loss else 10 * tokens * shape.vocabulary,
        frozen=references * 4 * everything / shards + (2 * reward.parameters if reward else 0),
        overhead=assumptions.memory.overhead_gb * GIB,
    )


def sampling_memory(
    shape: Shape, assumptions: Assumptions, *, longest: int, kv_bytes_share: float = 1.0
) -> Memory:
    """What vLLM needs at least: weights, a prefill pass, a cache for the longest sequence.

    Against `memory_share` of a GPU. `kv_bytes_share` is 0.5 for an 8-bit cache.
    """
    return _memory(
        weights=2 * shape.parameters,
        prefill=2 * max(PREFILL_TOKENS, longest) * inside_width(shape),
        logits=14 * MAX_SEQUENCES * shape.vocabulary,
        cache=kv_bytes_share * shape.kv_bytes * longest,
        overhead=assumptions.memory.overhead_gb * GIB,
    )


def cached_sequences(
    shape: Shape,
    assumptions: Assumptions,
    *,
    gpu_gb: float,
    longest: int,
    mean: float,
    kv_bytes_share: float = 1.0,
) -> int:
    """How many sequences of `mean` tokens vLLM decodes at a time, at most its own limit."""
    needed = sampling_memory(shape, assumptions, longest=longest, kv_bytes_share=kv_bytes_share)
    free = gpu_gb * assumptions.engine.memory_share - needed.total + needed.parts["cache"]
    fitting = int(free * GIB / (kv_bytes_share * shape.kv_bytes * mean))
    return max(1, min(fitting, MAX_SEQUENCES))


def scoring_memory(shape: Shape, assumptions: Assumptions, *, tokens: int) -> Memory:
    """A forward pass of `tokens` tokens, with the cache that a prompt's responses share."""
    return _memory(
        weights=2 * shape.parameters,
        cache=shape.kv_bytes * tokens,
        activations=2 * tokens * inside_width(shape),
        overhead=assumptions.memory.overhead_gb * GIB,
    )


def _memory(**parts: float) -> Memory:
    return Memory({name: size / GIB for name, size in parts.items()})
