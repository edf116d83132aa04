"""A reward model in an engine, or the reason why it cannot score what is asked."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from dpa.config.steering import ObjectiveConfig
from dpa.models import (
    AnyModel,
    ModelRef,
    download,
    load_checkpoint_config,
    load_tokenizer,
    output_names,
    refuse_own_code,
)
from dpa.objectives import check_outputs
from dpa.reward.inputs import RewardInputs
from dpa.reward.scorer import Scorer
from dpa.runtime.gpus import take_gpu
from dpa.runtime.watchdog import Watchdog


class RewardModel(NamedTuple):
    """A reward model before its weights are loaded: its outputs, and how it reads."""

    ref: ModelRef
    names: list[str]
    inputs: RewardInputs


def read_reward_model(
    reward_model: AnyModel,
    *,
    attributes: Sequence[str] | None = None,
    objectives: Sequence[ObjectiveConfig] = (),
) -> RewardModel:
    """All of a reward model but its weights.

    `attributes` names the outputs, in order: of a checkpoint that does not name them itself, or to
    be checked. Raises InputError when names are missing or differ, when one of the `objectives`
    uses an output that is not there, and for a model with code of its own that is not trusted.
    """
    ref = ModelRef.of(reward_model)
    config = load_checkpoint_config(ref)
    refuse_own_code(config.to_dict(), ref)
    names = output_names(config, attributes, ref.path)
    check_outputs(objectives, names, ref.path)
    return RewardModel(ref, names, RewardInputs(load_tokenizer(ref), config))


def load_scorer(
    reward_model: AnyModel,
    engine: str = "transformers",
    *,
    attributes: Sequence[str] | None = None,
    objectives: Sequence[ObjectiveConfig] = (),
    tokens_per_batch: int,
) -> Scorer:
    """A reward model in its engine, `transformers` or `vllm`; refused as by read_reward_model."""
    read = read_reward_model(reward_model, attributes=attributes, objectives=objectives)
    return load_weights(read, engine, tokens_per_batch)


def load_weights(model: RewardModel, engine: str, tokens_per_batch: int) -> Scorer:
    """The rest of a reward model, in its engine."""
    ref, names, inputs = model
    if engine == "transformers":
        from dpa.reward.transformers_scorer import load_transformers_scorer

        return load_transformers_scorer(ref, inputs, names, tokens_per_batch)
    from dpa.reward.vllm_scorer import VllmScorer

    return VllmScorer(ref, inputs, names, tokens_per_batch)


@contextmanager
def open_scorer(
    model: RewardModel, engine: str, output: Path, *, tokens_per_batch: int
) -> Iterator[Scorer]:
    """`load_weights` for a job that writes `output`: on a GPU of its own, under a watchdog, and
    closed in the end. A model of the hub is downloaded before: that may take an hour. Says which
    outputs scored all inputs alike."""
    download(model.ref)
    take_gpu()
    with Watchdog(f"scoring {output}") as watchdog:
        scorer = load_weights(model, engine, tokens_per_batch)
        scorer.on_batch = watchdog.beat
        with closing(scorer):
            yield scorer
            scorer.warn_if_constant(output)
