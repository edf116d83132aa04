"""Sample a policy on the validation prompts under a fixed grid, and score what it says.

Rule: evaluate_policy. Example:

    python -m scripts.evaluate_policy --policy dpa/iter1/policy \
        --directions '{"law": "arc", "from_degrees": -45, "to_degrees": 0}' --direction-count 10 \
        --reward-model reward_model/model --prompts data/prompts/validation.jsonl \
        --objectives '[{...}]' --responses-per-prompt 2 --sampling '{...}' \
        --tokens-per-batch 16384 --seed 0 --sampled sampled/dpa-1.jsonl --scored scored/dpa-1.jsonl

With --directions the grid is that many directions, with --conditions SteerLM's curve, with neither
the policy is asked in its own template. Writes Sample and ScoredSample records.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import log, make_app, parse, run

app = make_app()

#: Sets evaluation's seeds apart from those of iterations 1, 2, ...
EVALUATION = 0


@app.command()
def main(
    policy: Annotated[str, typer.Option(help="Folder or hub id.")],
    reward_model: Annotated[str, typer.Option(help="Folder or hub id.")],
    prompts: Annotated[Path, typer.Option(help="Validation prompts.")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    responses_per_prompt: Annotated[int, typer.Option(min=1, help="For each point of the grid.")],
    sampling: Annotated[str, typer.Option(help="config.yaml's sampling (JSON).")],
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Most tokens scored at a time.")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    sampled: Annotated[Path, typer.Option(help="Samples to write.")],
    scored: Annotated[Path, typer.Option(help="Scored samples to write.")],
    directions: Annotated[str | None, typer.Option(help="Direction law (JSON).")] = None,
    direction_count: Annotated[int, typer.Option(min=2)] = 10,
    conditions: Annotated[Path | None, typer.Option(help="SteerLM's conditions.")] = None,
    policy_revision: Annotated[str | None, typer.Option(help="Commit of a hub policy.")] = None,
    reward_model_revision: Annotated[str | None, typer.Option(help="Commit, likewise.")] = None,
) -> None:
    """Sample a policy on the validation prompts and score what it says."""
    from pydantic import TypeAdapter

    from dpa.config import Arc, Objective, Sampling
    from dpa.provenance import content_hash, write_sidecar
    from dpa.sampling import grid_of, sample_file
    from dpa.score_files import fingerprint, score_samples

    steered = parse(TypeAdapter(list[Objective]), objectives, "objectives")
    law = parse(Arc, directions, "directions").model_dump() if directions else None
    grid = grid_of(law, direction_count, conditions, responses_per_prompt)
    sample_file(
        sampled,
        policy=policy,
        revision=policy_revision,
        prompts=prompts,
        steer=lambda prompt_id: grid,
        names=[objective.name for objective in steered],
        sampling=parse(Sampling, sampling, "sampling"),
        seed=seed,
        iteration=EVALUATION,
        inputs=[conditions] if conditions else [],
    )

    from dpa.scoring import RewardModel

    model = RewardModel.load(reward_model, reward_model_revision, tokens_per_batch=tokens_per_batch)
    inputs: list[Path | str] = [reward_model, sampled, prompts]
    rows = score_samples(
        model,
        sampled,
        prompts,
        steered,
        scored,
        fingerprint([content_hash(Path(i)) for i in inputs], [model.names, objectives]),
    )
    write_sidecar(scored, inputs, rows=rows, scored=model.scored, cut=model.cut)
    log.info("scored %d responses", rows)


if __name__ == "__main__":
    run(app)
