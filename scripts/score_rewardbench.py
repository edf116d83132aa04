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
    from dpa.reward.load import open_scorer
    from dpa.reward.score_samples import score_choices

    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    choices = read_jsonl(items, Choice)
    with open_scorer(
        reward_model,
        engine,
        output,
        attributes=names_of(attributes),
        objectives=steered,
        tokens_per_batch=tokens_per_batch,
    ) as model:
        survey = model.survey((c.prompt, [c.chosen, c.rejected]) for c in choices)
        survey.check(output)
        rows = write_jsonl(output, score_choices(model, items, choices, steered))
    write_sidecar(
        output,
        [ModelRef.of(reward_model).path, items],
        RowCounts.all_kept(rows),
        scored=survey.inputs,
        cut=survey.truncated,
        neutralised=model.controls.log_escaped(),
    )


if __name__ == "__main__":
    run_app(app)
