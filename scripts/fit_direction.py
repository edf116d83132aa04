"""Find a direction: which one somebody means, from which of two answers they like better.

No rule: for people. Example:

    python -m scripts.fit_direction --comparisons mine.jsonl \
        --reward-model results/quickstart/reward_model/model

with lines such as

    {"prompt": "Describe the otter.", "a": "It swims.", "b": "It swims, and ...", "preferred": "a"}

prints "you are at -23° ± 6° after 12 clicks" (90 %), the direction for `--direction` of
scripts.chat, and which of the lines with `"preferred": null` tells most when it is judged next.
Objectives and directions are those of the policy that is going to be asked: its `steering.json` has
both. The second tab of scripts.dial asks by itself, and writes such a file.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    DirectionsOption,
    ObjectivesOption,
    RewardModelOption,
    TokensPerBatchOption,
)
from dpa.runtime.sections import names_of, read_section

app = make_app()


@app.command()
def main(
    comparisons: Annotated[
        Path, typer.Option(help="Pairs of answers and which is preferred (JSONL).")
    ],
    reward_model: RewardModelOption,
    objectives: ObjectivesOption = None,
    directions: DirectionsOption = None,
    attributes: AttributesOption = None,
    tokens_per_batch: TokensPerBatchOption = 16384,
) -> None:
    """Find the direction that somebody means."""
    from pydantic import TypeAdapter

    from dpa.config.steering import DirectionsConfig, ObjectivesConfig
    from dpa.directions import objectives_of
    from dpa.errors import InputError
    from dpa.reward.load import load_scorer
    from dpa.serving.fit_direction import (
        DirectionPosterior,
        add_comparisons,
        read_comparisons,
        reward_differences,
    )

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    kind: TypeAdapter = TypeAdapter(DirectionsConfig)
    distribution = read_section(kind, directions, "directions", "directions").model_dump()
    if objectives_of(distribution) != len(steered):
        raise InputError(
            f"--directions weigh {objectives_of(distribution)} objectives, --objectives has "
            f"{len(steered)}; give those of one policy (its steering.json has both)"
        )
    pairs = read_comparisons(comparisons)
    posterior = DirectionPosterior(distribution)
    scorer = load_scorer(
        reward_model,
        attributes=names_of(attributes),
        objectives=steered,
        tokens_per_batch=tokens_per_batch,
    )
    following = add_comparisons(posterior, pairs, reward_differences(pairs, scorer, steered))
    fit = posterior.fit()
    print(fit)
    print(f"--direction {','.join(f'{weight:.4f}' for weight in fit.direction)}")
    if following is not None:
        print(f"judge next: {comparisons}:{following + 1}")


if __name__ == "__main__":
    run_app(app)
