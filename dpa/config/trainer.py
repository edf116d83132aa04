"""How training stages run: hardware and optimiser, and a stage's schedule."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dpa.config.base import Fraction, Positive, Section


class ScheduleConfig(Section):
    """A training stage's schedule. `batch_size` is global: over all devices and accumulation."""

    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    epochs: Annotated[float, Field(ge=0, le=10_000)]
    """Passes over the rows."""
    batch_size: Positive
    """Rows per optimiser step, over all devices and accumulation steps."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps in which the learning rate rises to its peak."""
    lr_scheduler: Literal["cosine", "linear", "constant_with_warmup"]
    """How the learning rate falls after the warm-up."""
    max_length: Positive
    """Longest sequence, in tokens."""


class LoraConfig(Section):
    """Low-rank adapters on all linear layers but the output head, merged when a model is saved."""

    rank: Positive
    """Rank of the adapters."""
    alpha: Positive
    """Their scale is alpha / rank."""
    dropout: Fraction = 0.0
    """Dropout on their input."""


class TrainerConfig(Section):
    """Hardware and optimiser settings that all training stages share."""

    per_device_batch_size: Positive
    bf16: bool
    gradient_checkpointing: bool | Literal["auto"]
    packing: bool
    attention: str
    sharding: Literal["none", "fsdp"]
    lora: LoraConfig | None
    save_steps: Positive | None
    adam_betas: tuple[Fraction, Fraction]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    # Not part of what identifies a result: tracking a training changes nothing in it.
    # Jobs read it from their environment, and not from their flags.
    report_to: Annotated[list[str], Field(default_factory=list, exclude=True)]


class ScratchConfig(Section):
    vocab_size: Annotated[int, Field(ge=300)]
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    heads: Positive
    max_positions: Positive
    initializer_range: Annotated[float, Field(gt=0)]
    schedule: ScheduleConfig

    @model_validator(mode="after")
    def _heads(self) -> "ScratchConfig":
        if self.hidden_size % (2 * self.heads):
            raise ValueError("hidden_size must be an even multiple of heads")
        return self
