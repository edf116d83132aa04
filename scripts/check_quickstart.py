"""Check that a quickstart run shows what the paper claims: each fact, its bound and its value.

Rule: check_quickstart. Example:

    python -m scripts.check_quickstart --rewards evaluation/validation_rewards.csv \
        --annotations annotations/0.jsonl --hypervolume-reference 0,100

Fails when a fact fails.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import make_app, run

app = make_app()


@app.command()
def main(
    rewards: Annotated[Path, typer.Option(help="validation_rewards.csv")],
    annotations: Annotated[list[Path], typer.Option(help="Annotated original responses.")],
    hypervolume_reference: Annotated[str, typer.Option(help="Worst corner, comma-separated.")],
    output: Annotated[Path | None, typer.Option(help="Also write the list here.")] = None,
) -> None:
    """Check that a quickstart run shows what the paper claims."""
    import numpy as np

    from dpa.errors import InputError
    from dpa.evaluation import read_table
    from dpa.facts import front_facts, reward_model_facts
    from dpa.provenance import write_text
    from dpa.records import Annotation, decode_lines
    from dpa.world import gold_rewards

    held_out = [
        record
        for path in annotations
        for record in decode_lines(path, Annotation)
        if record.split == "validation"
    ]
    gold = np.array([gold_rewards(str(r.prompt), r.response) for r in held_out])
    predicted = np.array([record.rewards for record in held_out])
    reference = [float(value) for value in hypervolume_reference.split(",")]
    facts = [*reward_model_facts(predicted, gold), *front_facts(read_table(rewards), reference)]
    lines = [
        f"{'ok  ' if f.holds else 'FAIL'} {f.value:8.3f} {'>' if f.above else '<='} {f.bound:6.2f}"
        f"  {f.name}"
        for f in facts
    ]
    print("\n".join(lines))
    if failed := [fact.name for fact in facts if not fact.holds]:
        raise InputError(f"{len(failed)} of {len(facts)} facts do not hold: {'; '.join(failed)}")
    print(f"all {len(facts)} facts hold")
    if output:
        write_text(output, "\n".join(lines) + "\n")


if __name__ == "__main__":
    run(app)
