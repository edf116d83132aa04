"""Run a command that starts several processes on GPUs that no other job here has.

No rule of its own: it starts the launcher of every training on several GPUs. Example:

    python -m scripts.hold_gpus --count 4 accelerate launch --multi_gpu --num_processes 4 \
        -m scripts.train_sft --base-model base_model --seed 0 --output sft/policy

The command takes the place of this process, and holds the GPUs until it ends.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app

app = make_app()


@app.command(context_settings={"allow_interspersed_args": False})
def main(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.")],
    count: Annotated[int, typer.Option(min=1, help="GPUs that the command needs.")] = 1,
) -> None:
    """Run a command on GPUs that no other job here has."""
    from dpa.runtime.gpus import claim_gpus, hold_for

    claim_gpus(count)
    hold_for(command)


if __name__ == "__main__":
    run_app(app)
