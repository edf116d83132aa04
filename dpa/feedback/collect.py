"""From what an annotator says to ratings that a reward model is trained on."""

from collections.abc import Sequence
from pathlib import Path

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.feedback import AnnotatorConfig
from dpa.data.rated import Tally
from dpa.errors import InputError
from dpa.feedback.annotators import Annotator
from dpa.records import Rating, ToRate
from dpa.runtime.log import log


def collect_ratings(
    to_rate: Path,
    annotator: Annotator,
    attributes: Sequence[str],
    iteration: int,
    minimum: float,
    output: Path,
    config: AnnotatorConfig,
) -> None:
    """Write the ratings of an iteration's samples, in their order, with a sidecar.

    Raises InputError when fewer than the share `minimum` of the samples got one.
    """
    items = read_jsonl(to_rate, ToRate)
    tally = Tally()
    rated = annotator(items, tally)
    ratings = [
        Rating(
            prompt_id=item.prompt_id,
            prompt=item.prompt,
            response=item.response,
            attributes=found,
            dataset=f"feedback-{iteration}",
            split="train",
        )
        for item, found in zip(items, rated, strict=True)
        if found
    ]
    if not ratings or len(ratings) < minimum * len(items):
        raise InputError(
            f"{output}: {len(ratings)} of {len(items)} responses have a rating ({tally}), fewer "
            f"than feedback.minimum ({minimum:g} of them); have more of {to_rate} rated, "
            "or lower it"
        )
    write_jsonl(output, ratings)
    labels = {name: sum(name in r.attributes for r in ratings) for name in attributes}
    write_sidecar(
        output,
        [to_rate, *_inputs(config, iteration)],
        asked=len(items),
        rated=len(ratings),
        labels={name: count for name, count in labels.items() if count},
        annotation=tally.as_dict(),
    )
    log.info("%d of %d responses have a rating", len(ratings), len(items))


def _inputs(config: AnnotatorConfig, iteration: int) -> list[Path | str]:
    """What an annotator's ratings are from, for the sidecar."""
    match config.kind:
        case "reward_model":
            return [config.model.path]
        case "file":
            return [Path(config.path) / f"iter{iteration}"]
        case _:
            return []
