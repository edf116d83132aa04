"""Who rates: one interface for all kinds of annotators."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dpa.config.chat import ModelsConfig
from dpa.config.feedback import AnnotatorConfig
from dpa.data.rated import Tally
from dpa.data.scales import NATIVE_SCALES
from dpa.data.user_table import Linear
from dpa.records import ToRate
from dpa.runtime.run_environment import ANSWERS

#: Rates all samples of an iteration: for each its attributes on 0-100, those that were rated; none
#: for a sample that has no rating, for which it says why in the tally.
Annotator = Callable[[Sequence[ToRate], Tally], list[dict[str, float]]]


def open_annotator(
    config: AnnotatorConfig,
    attributes: Sequence[str],
    iteration: int,
    seed: int,
    output: Path,
    models: ModelsConfig | None = None,
    store: Path = ANSWERS,
) -> Annotator:
    """The annotator of a kind, for some of the reward model's `attributes`.

    `output` is what its ratings are for: beside it a model keeps what it has scored until that is
    whole. `store` keeps the answers of one that is asked over HTTP.
    Raises InputError when it cannot rate: a model is missing, or people have not rated yet.
    """
    match config.kind:
        case "gold":
            from dpa.feedback.gold import gold_annotator

            return gold_annotator(attributes, seed)
        case "reward_model":
            from dpa.feedback.checkpoint import checkpoint_annotator

            return checkpoint_annotator(config, output, models)
        case "file":
            from dpa.feedback.rated_files import file_annotator

            folder = Path(config.path) / f"iter{iteration}"
            return file_annotator(folder, attributes, config.scales)
        case "endpoint":
            from dpa.feedback.endpoint import endpoint_annotator

            return endpoint_annotator(config, attributes, seed, store)


def scale_ends(name: str, scales: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """The lowest and the highest rating of an attribute. Raises KeyError when it has no scale."""
    return scales[name] if name in scales else NATIVE_SCALES[name][:2]


def rating_points(name: str, rating: float, scales: Mapping[str, tuple[float, float]]) -> float:
    """An attribute's rating on 0-100, by `scales` or the scale of its data set.

    Raises ValueError outside of the scale.
    """
    points = Linear(*scale_ends(name, scales))(rating)
    return points if name in scales else NATIVE_SCALES[name].points(rating)
