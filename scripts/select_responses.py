"""Select each direction's best response and add replayed originals: an iteration's training data.

Rule: select_responses. Example:

    python -m scripts.select_responses --scored scored/0.jsonl --scored scored/1.jsonl \
        --prompts data/prompts/d1.jsonl --annotations annotations/0.jsonl --iteration 1 --seed 0 \
        --shared --output selected.jsonl

Writes one Selected record per line, byte-identical for any number and order of shards.
"""

from typing import Annotated, Literal

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    AnnotationsOption,
    DirectionsOption,
    DirectionsPerPromptOption,
    IterationOption,
    MembersOption,
    OutputOption,
    PessimismOption,
    PromptsOption,
    ResponsesPerDirectionOption,
    ScoredOption,
    SeedOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    scored: ScoredOption,
    prompts: PromptsOption,
    annotations: AnnotationsOption,
    iteration: IterationOption,
    seed: SeedOption,
    output: OutputOption,
    directions: DirectionsOption = None,
    directions_per_prompt: DirectionsPerPromptOption = 5,
    responses_per_direction: ResponsesPerDirectionOption = 16,
    members: MembersOption = 1,
    pessimism: PessimismOption = None,
    replay_fraction: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of original responses among the rows.")
    ] = 0.15,
    shared: Annotated[
        bool, typer.Option("--shared", help="Directions choose among all of a prompt's candidates.")
    ] = False,
    distinct: Annotated[
        bool, typer.Option("--distinct", help="No answer for two directions of a prompt.")
    ] = False,
    candidates: Annotated[
        Literal["own", "neighbours", "all"],
        typer.Option(help="Whose responses a direction chooses among."),
    ] = "own",
    neighbour_degrees: Annotated[
        float, typer.Option(min=0, max=180, help="How far away `neighbours` are.")
    ] = 15.0,
) -> None:
    """Select each direction's best response and add replayed originals."""
    from dataclasses import asdict

    from dpa.artefacts.jsonl import write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import DistributionConfig, PessimismConfig
    from dpa.methods.best_of_n import Repeats, SelectionPlan, Truncated, select

    plan = SelectionPlan(
        distribution=read_section(
            DistributionConfig, directions, "directions", "directions"
        ).model_dump(),
        seed=seed,
        iteration=iteration,
        directions_per_prompt=directions_per_prompt,
        responses_per_direction=responses_per_direction,
        members=members,
        pessimism=read_section(PessimismConfig, pessimism, "pessimism", "dpa.pessimism"),
        shared=shared,
        distinct=distinct,
        replay_fraction=replay_fraction,
        candidates=candidates,
        neighbour_degrees=neighbour_degrees,
    )
    sampled, replayed, truncated = RowCounts(), RowCounts(), Truncated()
    repeats = Repeats()
    chosen = select(scored, prompts, annotations, plan, sampled, replayed, truncated)
    rows = write_jsonl(output, repeats.count(chosen))
    write_sidecar(
        output, [*scored, prompts, *annotations], sampled, rows=rows, replay=replayed.as_dict(),
        duplicates=repeats.repeated, duplicate_share=round(repeats.share, 4),
        truncated_candidates=asdict(truncated),
    )  # fmt: skip
    log.info("selected %d rows for %d of %d prompts", rows, sampled.kept, sampled.read)
    log.info(
        "%d of %d sampled rows (%.1f %%) repeat a response that their prompt has already",
        repeats.repeated, repeats.rows, 100 * repeats.share,
    )  # fmt: skip


if __name__ == "__main__":
    run_app(app)
