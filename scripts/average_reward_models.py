"""Average reward models that started alike, weight by weight.

Rule: average_reward_models (only with reward_model.average). Example:

    python -m scripts.average_reward_models --reward-model reward_model/member1/model \
        --reward-model reward_model/member2/model --output reward_model/model

Writes a reward model like any other.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import OutputFolderOption

app = make_app()


@app.command()
def main(
    reward_model: Annotated[
        list[Path], typer.Option("--reward-model", help="Folders of the models to be averaged.")
    ],
    output: OutputFolderOption,
) -> None:
    """Average reward models that started alike, weight by weight."""
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.methods.reward_soup import interpolate

    interpolate(reward_model, [1 / len(reward_model)] * len(reward_model), output)
    write_sidecar(output, reward_model, averaged=len(reward_model))


if __name__ == "__main__":
    run_app(app)
