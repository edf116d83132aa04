"""A reward model in an engine, or the reason why it cannot score what is asked."""

from collections.abc import Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dpa.config.steering import ObjectiveConfig
from dpa.models import load_checkpoint_config, load_tokenizer
from dpa.objectives import check_outputs
from dpa.reward.scorer import Scorer, output_names
from dpa.runtime.gpus import claim_gpu
from dpa.runtime.startup import import_models
from dpa.runtime.watchdog import Watchdog


@contextmanager
def open_scorer(engine: str, path: str, revision: str | None, output: Path, **options: Any):
    """A reward model, see dpa.reward.load.load_scorer; under a watchdog, and closed in the end."""
    if engine == "transformers":
        import_models()
    claim_gpu()
    with Watchdog(f"scoring {output}") as watchdog:
        model = load_scorer(engine, path, revision, **options)
        model.on_batch = watchdog.beat
        with closing(model):
            yield model


def load_scorer(
    engine: str,
    path: str,
    revision: str | None = None,
    *,
    attributes: Sequence[str] | None = None,
    objectives: Sequence[ObjectiveConfig] = (),
    tokens_per_batch: int,
) -> Scorer:
    """A reward model in an engine, `transformers` or `vllm`; otherwise as RewardModel.load."""
    if engine == "transformers":
        from dpa.reward.transformers_scorer import TransformersScorer

        return TransformersScorer.load(
            path,
            revision,
            attributes=attributes,
            objectives=objectives,
            tokens_per_batch=tokens_per_batch,
        )
    from dpa.reward.vllm_scorer import VllmScorer

    config = load_checkpoint_config(path, revision)
    names = output_names(config, attributes, path)
    check_outputs(objectives, names, path)
    return VllmScorer(
        path, revision, config, load_tokenizer(path, revision), names, tokens_per_batch
    )
