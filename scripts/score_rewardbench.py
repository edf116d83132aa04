"""Score RewardBench's chosen and rejected responses with the multi-objective reward model.

Rule: score_rewardbench. Example:

    python -m scripts.score_rewardbench --reward-model reward_model/model \
        --items rewardbench/items.jsonl --output rewardbench/rewards.jsonl

The reward model reads both in its own template. Writes a ScoredChoice record per row.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AttributesOption,
    EngineOption,
    ObjectivesOption,
    OutputOption,
    RewardModelOption,
    TokensPerBatchOption,
)
from dpa.runtime.sections import names_of, read_section

app = make_app()


@app.command()
def main(
    reward_model: RewardModelOption,
    items: Annotated[Path, typer.Option(help="The benchmark's rows.")],
    output: OutputOption,
    objectives: ObjectivesOption = None,
    tokens_per_batch: TokensPerBatchOption = 16384,
    attributes: AttributesOption = None,
    engine: EngineOption = "transformers",
) -> None:
    """Score RewardBench's chosen and rejected responses with the reward model."""
    from dpa.artefacts.jsonl import read_jsonl, write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import ObjectivesConfig
    from dpa.models import ModelRef
    from dpa.records import Choice
    from dpa.reward.load import open_scorer, read_reward_model
    from dpa.reward.score_samples import groups_of_choices, score_choices

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    choices = read_jsonl(items, Choice)
    read = read_reward_model(reward_model, attributes=names_of(attributes), objectives=steered)
    survey = read.inputs.survey(groups_of_choices(choices), 2 * len(choices))
    survey.check(output)
    with open_scorer(read, engine, output, tokens_per_batch=tokens_per_batch) as model:
        rows = write_jsonl(output, score_choices(model, items, choices, steered))
    write_sidecar(
        output,
        [ModelRef.of(reward_model).path, items],
        RowCounts.all_kept(rows),
        scored=survey.inputs,
        cut=survey.truncated,
        neutralised=read.inputs.controls.log_escaped(),
    )


if __name__ == "__main__":
    run_app(app)
