"""Have the chosen samples of an iteration rated by the annotator.

Rule: annotate_feedback (only with a feedback.annotator). Example:

    python -m scripts.annotate_feedback --to-rate to_rate.jsonl --annotator '{"kind": "gold"}' \
        --iteration 1 --seed 0 --output ratings.jsonl

Writes a Rating per rated sample, in their order. Stops when fewer have one than --minimum says.
Answers of an annotator that is asked over HTTP are kept in --cache, and none is asked for twice; a
model's scores are kept until the ratings are whole.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    CacheOption,
    IterationOption,
    ModelsOption,
    OutputOption,
    SeedOption,
)
from dpa.runtime.run_environment import ANSWERS
from dpa.runtime.sections import default_section, names_of, read_section

app = make_app()


@app.command()
def main(
    to_rate: Annotated[Path, typer.Option(help="The samples that choose_samples_to_rate chose.")],
    annotator: Annotated[
        str, typer.Option(help="config.yaml's feedback.annotator (JSON, or @file).")
    ],
    iteration: IterationOption,
    seed: SeedOption,
    output: OutputOption,
    attributes: AttributesOption = None,
    models: ModelsOption = None,
    minimum: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the samples that must get a rating.")
    ] = 0.9,
    cache: CacheOption = ANSWERS,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Calls at a time, of an endpoint.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Most US dollars for an endpoint's answers.")
    ] = None,
) -> None:
    """Have the chosen samples of an iteration rated."""
    from dpa.config.chat import ModelsConfig
    from dpa.config.feedback import AnnotatorSectionConfig
    from dpa.feedback.annotators import open_annotator
    from dpa.feedback.collect import collect_ratings

    config = read_section(AnnotatorSectionConfig, annotator, "annotator")
    chats = read_section(ModelsConfig, models, "models", "models")
    if config.kind == "endpoint":
        limits = {"concurrency": concurrency, "max_cost": max_cost}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        config = config.model_copy(update=given)
    names = names_of(attributes) or default_section("reward_model.attributes")
    rater = open_annotator(config, names, iteration, seed, output, chats, cache)
    collect_ratings(to_rate, rater, names, iteration, minimum, output, config)


if __name__ == "__main__":
    run_app(app)
