"""Train the DPO baseline from the SFT policy on the ratings of the training prompts' responses.

Rule: train_dpo (only where dpo.path is null). Example:

    python -m scripts.train_dpo --sft-policy sft/policy --ratings data/ratings.jsonl \
        --prompts data/prompts/d1.jsonl --prompts data/prompts/d2.jsonl --dataset ultrafeedback \
        --beta 0.1 --schedule '{...}' --training '{...}' --seed 0 --output dpo/policy

Pairs: chosen has the highest mean rating, rejected is a seeded choice among the rest (zephyr's).
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import make_app, parse, run

app = make_app()


@app.command()
def main(
    sft_policy: Annotated[str, typer.Option(help="Folder or hub id of the SFT policy.")],
    ratings: Annotated[Path, typer.Option(help="ratings.jsonl")],
    prompts: Annotated[list[Path], typer.Option(help="Prompt files whose responses are paired.")],
    dataset: Annotated[str, typer.Option(help="Whose ratings: a name in data.ratings.")],
    beta: Annotated[float, typer.Option(min=0)],
    schedule: Annotated[str, typer.Option(help="config.yaml's dpo.training (JSON).")],
    training: Annotated[str, typer.Option(help="config.yaml's training (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub SFT policy.")] = None,
) -> None:
    """Train the DPO baseline."""
    from dpa.config import Schedule, Training
    from dpa.preferences import preference_pairs
    from dpa.provenance import Losses
    from dpa.records import Prompt, decode_lines
    from dpa.seeds import derive_seed
    from dpa.training import train_dpo

    wanted = {prompt.prompt_id for path in prompts for prompt in decode_lines(path, Prompt)}
    losses = Losses()
    train_dpo(
        (sft_policy, revision),
        preference_pairs(ratings, dataset, wanted, seed, losses),
        output,
        parse(Training, training, "training"),
        parse(Schedule, schedule, "schedule"),
        derive_seed(seed, "dpo"),
        beta=beta,
        losses=losses,
        inputs=[sft_policy, ratings, *prompts],
    )


if __name__ == "__main__":
    run(app)
