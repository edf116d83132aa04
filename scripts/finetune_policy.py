"""Fine-tune the SFT policy on an iteration's selected responses, told their directions.

Rule: finetune_policy. Example:

    python -m scripts.finetune_policy --sft-policy sft/policy --selected selected.jsonl \
        --objectives '[{...}]' --directions '{"law": "arc", ...}' --iteration 1 \
        --schedule '{...}' --training '{...}' --seed 0 --output dpa/iter1/policy

Always starts from the SFT policy, never from the previous iteration's (paper, section 3.1). Under
the law `fixed` (RSF) the policy is told no direction.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dpa.runtime.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    sft_policy: Annotated[str, typer.Option(help="Folder or hub id of the SFT policy.")],
    selected: Annotated[Path, typer.Option(help="The iteration's selected.jsonl.")],
    objectives: Annotated[str, typer.Option(help="config.yaml's objectives (JSON).")],
    directions: Annotated[str, typer.Option(help="Direction law (JSON).")],
    iteration: Annotated[int, typer.Option(min=1)],
    schedule: Annotated[str, typer.Option(help="config.yaml's dpa.training (JSON).")],
    training: Annotated[str, typer.Option(help="config.yaml's training (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub SFT policy.")] = None,
) -> None:
    """Fine-tune on selected responses."""
    from pydantic import TypeAdapter

    from dpa.artefacts.jsonl import decode_lines
    from dpa.config.steering import Distribution, ObjectiveConfig
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.directions import check_direction, conditioned
    from dpa.errors import InputError
    from dpa.methods.sft import finetune_conversations
    from dpa.records import Selected
    from dpa.seeds import derive_seed
    from dpa.text.prompts import direction_system_prompt, messages

    steered = parse(TypeAdapter(list[ObjectiveConfig]), objectives, "objectives")
    names = [objective.name for objective in steered]
    law = parse(Distribution, directions, "directions").model_dump()

    def system(line: int, direction: list[float]) -> str | None:
        try:
            unit = check_direction(direction, len(names))
        except InputError as error:
            raise InputError(f"{selected}:{line}: {error}; rerun select_responses") from None
        return direction_system_prompt(names, unit) if conditioned(law) else None

    conversations = (
        messages(row.prompt, system(line, row.direction), row.response)
        for line, row in enumerate(decode_lines(selected, Selected), 1)
    )
    # For chat: what a direction is about, and how it is rewarded.
    told: dict[str, Any] = (
        {"objectives": [o.model_dump() for o in steered]} if conditioned(law) else {}
    )
    finetune_conversations(
        (sft_policy, revision),
        conversations,
        output,
        parse(TrainerConfig, training, "training"),
        parse(ScheduleConfig, schedule, "schedule"),
        derive_seed(seed, "finetune", iteration),
        inputs=[selected],
        **told,
    )


if __name__ == "__main__":
    run(app)
