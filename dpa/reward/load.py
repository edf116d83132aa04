"""A reward model in an engine, or the reason why it cannot score what is asked."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dpa.config.steering import ObjectiveConfig
from dpa.models import AnyModel, ModelRef, load_checkpoint_config, load_tokenizer
from dpa.objectives import check_outputs
from dpa.reward.scorer import Scorer, output_names
from dpa.runtime.gpus import take_gpu
from dpa.runtime.watchdog import Watchdog


def load_scorer(
    reward_model: AnyModel,
    engine: str = "transformers",
    *,
    attributes: Sequence[str] | None = None,
    objectives: Sequence[ObjectiveConfig] = (),
    tokens_per_batch: int,
) -> Scorer:
    """A reward model in its engine, `transformers` or `vllm`.

    `attributes` names the outputs, in order: of a checkpoint that does not name them itself, or to
    be checked. Raises InputError before the weights are read when names are missing or differ, or
    when one of the `objectives` uses an output that is not there.
    """
    ref = ModelRef.of(reward_model)
    config = load_checkpoint_config(ref)
    names = output_names(config, attributes, ref.path)
    check_outputs(objectives, names, ref.path)
    tokenizer = load_tokenizer(ref)
    if engine == "transformers":
        from dpa.reward.transformers_scorer import load_transformers_scorer

        return load_transformers_scorer(ref, tokenizer, names, tokens_per_batch)
    from dpa.reward.vllm_scorer import VllmScorer

    return VllmScorer(ref, config, tokenizer, names, tokens_per_batch)


@contextmanager
def open_scorer(
    reward_model: AnyModel, engine: str, output: Path, **options: Any
) -> Iterator[Scorer]:
    """`load_scorer` for a job that writes `output`: on a GPU of its own, under a watchdog, and
    closed in the end."""
    take_gpu()
    with Watchdog(f"scoring {output}") as watchdog:
        model = load_scorer(reward_model, engine, **options)
        model.on_batch = watchdog.beat
        with closing(model):
            yield model
