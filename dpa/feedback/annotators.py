"""Who rates: one interface for all kinds of annotators."""

from collections.abc import Callable, Sequence

from dpa.config.feedback import AnnotatorConfig
from dpa.data.rated import Tally
from dpa.records import ToRate

#: Rates all samples of an iteration: for each its attributes on 0-100, those that were rated; none
#: for a sample that has no rating, for which it says why in the tally.
Annotator = Callable[[Sequence[ToRate], Tally], list[dict[str, float]]]


def open_annotator(config: AnnotatorConfig, attributes: Sequence[str], seed: int) -> Annotator:
    """The annotator of a kind, for the reward model's `attributes`."""
    match config.kind:
        case "gold":
            from dpa.feedback.gold import gold_annotator

            return gold_annotator(attributes, seed)
