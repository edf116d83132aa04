"""Choose for each direction the best of n responses: best of n at inference.

Rule: choose_best. Example:

    python -m scripts.choose_best --scored evaluation/candidates/scored_by/reward_model/sft.jsonl \
        --prompts data/prompts/validation.jsonl --grid 10 --samples-per-answer 16 \
        --output evaluation/sampled/best_of_n_sft.jsonl

Writes Sample records, as sample_evaluation does for a policy that takes directions.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    DirectionsOption,
    GridOption,
    MembersOption,
    OutputOption,
    PessimismOption,
    PromptsOption,
    ScoredOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    scored: ScoredOption,
    prompts: PromptsOption,
    output: OutputOption,
    samples_per_answer: Annotated[
        int, typer.Option(min=2, help="Responses that an answer is the best of.")
    ] = 16,
    grid: GridOption = "10",
    directions: DirectionsOption = None,
    members: MembersOption = 1,
    pessimism: PessimismOption = None,
) -> None:
    """Choose each direction's best of n responses."""
    from dataclasses import asdict

    from dpa.artefacts.jsonl import write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import DistributionConfig, GridConfig, PessimismConfig
    from dpa.directions import evaluation_directions
    from dpa.methods.best_at_inference import choose_answers
    from dpa.methods.best_of_n import Truncated

    distribution = read_section(
        DistributionConfig, directions, "directions", "directions"
    ).model_dump()
    row_counts, truncated = RowCounts(), Truncated()
    answers = choose_answers(
        scored,
        prompts,
        evaluation_directions(distribution, read_section(GridConfig, grid, "grid")),
        samples_per_answer,
        row_counts,
        truncated,
        members=members,
        pessimism=read_section(PessimismConfig, pessimism, "pessimism", "dpa.pessimism"),
    )
    rows = write_jsonl(output, answers)
    write_sidecar(
        output, [*scored, prompts], row_counts, rows=rows, samples_per_answer=samples_per_answer,
        truncated_candidates=asdict(truncated),
    )  # fmt: skip
    log.info("chose %d answers, each the best of %d responses", rows, samples_per_answer)


if __name__ == "__main__":
    run_app(app)
