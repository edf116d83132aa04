"""Pair each direction's best and worst response: an iteration's data for directional DPO.

Rule: select_pairs. Example:

    python -m scripts.select_pairs --scored scored/0.jsonl --scored scored/1.jsonl \
        --prompts data/prompts/d2.jsonl --iteration 1 --seed 0 --output pairs.jsonl

Writes one Pair record per line, byte-identical for any number and order of shards.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
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
    iteration: IterationOption,
    seed: SeedOption,
    output: OutputOption,
    directions: DirectionsOption = None,
    directions_per_prompt: DirectionsPerPromptOption = 5,
    responses_per_direction: ResponsesPerDirectionOption = 16,
    members: MembersOption = 1,
    pessimism: PessimismOption = None,
) -> None:
    """Pair each direction's best and worst response."""
    from dataclasses import asdict

    from dpa.artefacts.jsonl import write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import DistributionConfig, PessimismConfig
    from dpa.methods.best_of_n import SelectionPlan, Truncated
    from dpa.methods.preference_pairs import sampled_pairs

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
    )
    sampled, paired, truncated = RowCounts(), RowCounts(), Truncated()
    rows = write_jsonl(output, sampled_pairs(scored, prompts, plan, sampled, paired, truncated))
    write_sidecar(
        output,
        [*scored, prompts],
        sampled,
        rows=rows,
        pairs=paired.as_dict(),
        truncated_candidates=asdict(truncated),
    )
    log.info("%d pairs for %d of %d prompts", rows, sampled.kept, sampled.read)


if __name__ == "__main__":
    run_app(app)
