"""What a training process holds on its GPU at peak, part by part; and whether it recomputes.

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
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from dpa.config.base import Section
from dpa.config.trainer import ScheduleConfig, TrainerConfig

GIB = 2**30
#: CUDA context, NCCL's buffers and the allocator's waste, in bytes. Ours.
OVERHEAD = 3 * GIB
#: Share of a GPU up to which activations are kept for the backward pass: the rest is for what this
#: arithmetic leaves out.
ROOM = 0.9


class Shape(Section):
    """A decoder-only transformer with gated feed-forward layers and no biases.

    >>> Shape(vocabulary=10, hidden=4, intermediate=6, layers=2, heads=2, kv_heads=1, head_dim=2,
    ...       tied=True, positions=8).parameters
    300
    """

    vocabulary: Annotated[int, Field(gt=0)]
    hidden: Annotated[int, Field(gt=0)]
    intermediate: Annotated[int, Field(gt=0)]
    layers: Annotated[int, Field(gt=0)]
    heads: Annotated[int, Field(gt=0)]
    kv_heads: Annotated[int, Field(gt=0)]
    head_dim: Annotated[int, Field(gt=0)]
    tied: bool
    positions: Annotated[int, Field(gt=0)]

    @property
    def layer_matrices(self) -> int:
        """Weights of a layer: queries and output, keys and values, three feed-forward matrices."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """All weights: embeddings (and the output layer unless tied), layers, norms."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (self.layer_matrices + 2 * self.hidden) + self.hidden

    def adapters(self, rank: int) -> int:
        """Weights of low-rank adapters on all matrices of the layers."""
        q, k = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + q) + 2 * (self.hidden + k)
        return rank * self.layers * (attention + 3 * (self.hidden + self.intermediate))

    @property
    def multiplied(self) -> int:
        """Weights that a token is multiplied with: looking up its embedding costs no arithmetic."""
        return self.layers * self.layer_matrices + self.vocabulary * self.hidden

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values that a token leaves in a 16-bit cache."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


def shape_of_config(config: dict[str, Any]) -> Shape:
    """The shape in a configuration of the Llama, Mistral, Gemma or Qwen kind.

    Raises KeyError, TypeError, ArithmeticError or ValidationError for another one.
    """
    config = config.get("text_config") or config
    heads = config["num_attention_heads"]
    # Not written where it is the class's default, which is true for Gemma alone.
    tied = config.get("tie_word_embeddings", config.get("model_type", "").startswith("gemma"))
    return Shape(
        vocabulary=config["vocab_size"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        tied=tied,
        positions=config["max_position_embeddings"],
    )


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
    return memory_of(
        states=(16 * trained + 2 * (everything - trained)) / shards,
        gathered=2 * gathered,
        activations=2 * tokens * (inputs + layers * inside_width(shape)),
        loss=0 if fused_loss else 10 * tokens * shape.vocabulary,
        frozen=references * 4 * everything / shards + (2 * reward.parameters if reward else 0),
        overhead=OVERHEAD,
    )


def memory_of(**parts: float) -> Memory:
    """Memory of so many bytes by part."""
    return Memory({name: size / GIB for name, size in parts.items()})


@dataclass(frozen=True)
class Held:
    """What a kind of training has on the GPU besides a policy and its rows."""

    sequences: int = 1
    """Of max_length tokens, in each row."""
    references: int = 0
    """Frozen copies of the policy; LoRA needs none."""
    rewarded: bool = False
    """Whether a reward model is there."""
    sharded: bool = True
    """Whether sharding applies to it."""


FINETUNING = Held()
PAIRS = Held(sequences=2, references=1)
POLICY_GRADIENT = Held(references=1, rewarded=True, sharded=False)
ONLINE_PAIRS = Held(sequences=2, references=1, rewarded=True, sharded=False)


def stage_memory(
    shape: Shape,
    trainer: TrainerConfig,
    schedule: ScheduleConfig,
    held: Held,
    *,
    processes: int,
    recompute: bool,
    reward: Shape | None = None,
) -> Memory:
    """`training_memory` of a stage; its reward model is taken to be of the policy's shape unless
    given."""
    rows = min(trainer.per_device_batch_size, max(1, schedule.batch_size // processes))
    return training_memory(
        shape,
        tokens=rows * held.sequences * schedule.max_length,
        shards=processes if trainer.sharding == "fsdp" and held.sharded else 1,
        recompute=recompute,
        trained=shape.adapters(trainer.lora.rank) if trainer.lora else None,
        references=0 if trainer.lora else held.references,
        reward=(reward or shape) if held.rewarded else None,
    )


def recomputes(setting: bool | Literal["auto"], kept: Memory, gpu_gb: float) -> bool:
    """Whether a stage recomputes activations: `auto` does where the memory of a stage that keeps
    them (`kept`) leaves no room on a GPU of so many GiB."""
    return kept.total > ROOM * gpu_gb if setting == "auto" else setting
