"""What sampling and scoring hold on a GPU at peak, part by part; trainings: dpa.training.memory.

Letters as there.

Sampling (vLLM): weights 2 P, a prefill pass of max(8192, longest sequence) tokens, 2 T w, and the
logits of as many sequences as it may decode at a time, 14 V each (16-bit, their float32 copy,
probabilities and noise), within `memory_share` of the GPU; what is left is cache, at 4 L k bytes a
token, and must hold the longest sequence. How many mean sequences it holds bounds the batch.

Log-probabilities of responses: weights 2 P, insides 2 T w of a pass of T tokens, and logits: 2 V T,
and 8 V for each token of the longest response.

Scoring: weights 2 P, cache 4 L k T and insides 2 T w of a pass of T = tokens_per_batch.
"""

from dpa.generation.vllm_engine import MAX_SEQUENCES, PREFILL_TOKENS
from dpa.plan.assumptions import Assumptions
from dpa.training.memory import GIB, OVERHEAD, Memory, Shape, inside_width, memory_of


def sampling_memory(shape: Shape, *, longest: int, kv_bytes_share: float = 1.0) -> Memory:
    """What vLLM needs at least: weights, a prefill pass, a cache for the longest sequence.

    Against `memory_share` of a GPU. `kv_bytes_share` is 0.5 for an 8-bit cache.
    """
    return memory_of(
        weights=2 * shape.parameters,
        prefill=2 * max(PREFILL_TOKENS, longest) * inside_width(shape),
        logits=14 * MAX_SEQUENCES * shape.vocabulary,
        cache=kv_bytes_share * shape.kv_bytes * longest,
        overhead=OVERHEAD,
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
    needed = sampling_memory(shape, longest=longest, kv_bytes_share=kv_bytes_share)
    free = gpu_gb * assumptions.engine.memory_share - needed.total + needed.parts["cache"]
    fitting = int(free * GIB / (kv_bytes_share * shape.kv_bytes * mean))
    return max(1, min(fitting, MAX_SEQUENCES))


def likelihood_memory(shape: Shape, *, tokens: int, longest: int) -> Memory:
    """A forward pass of `tokens` tokens with the logits of all, and a row's in float32, twice."""
    return memory_of(
        weights=2 * shape.parameters,
        activations=2 * tokens * inside_width(shape),
        logits=(2 * max(tokens, longest) + 8 * longest) * shape.vocabulary,
        overhead=OVERHEAD,
    )


def scoring_memory(shape: Shape, *, tokens: int) -> Memory:
    """A forward pass of `tokens` tokens, with the cache that a prompt's responses share."""
    return memory_of(
        weights=2 * shape.parameters,
        cache=shape.kv_bytes * tokens,
        activations=2 * tokens * inside_width(shape),
        overhead=OVERHEAD,
    )
