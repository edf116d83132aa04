"""Draw the training curves of the PPO row: reward, KL, length.

Rule: plot_policy_gradient. Example:

    python -m scripts.plot_policy_gradient --history ppo/100_0/history.csv --title quickstart \
        --output figures/policy_gradient.png

The folder of a history names its direction.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import log, make_app, run

app = make_app()


@app.command()
def main(
    history: Annotated[list[Path], typer.Option(help="<direction>/history.csv files.")],
    title: Annotated[str, typer.Option()],
    output: Annotated[list[Path], typer.Option(help="Files to write (.pdf, .svg, .png).")],
) -> None:
    """Draw the training curves of the PPO row."""
    import os

    import pandas as pd

    from dpa.figures import plot_policy_gradient, save_figure
    from dpa.provenance import write_sidecar

    common = os.path.commonpath([path.parent.parent for path in history])
    names = {str(path.parent.relative_to(common)): path for path in history}
    histories = {name: pd.read_csv(path) for name, path in names.items()}
    save_figure(plot_policy_gradient(histories, title), output)
    for path in output:
        write_sidecar(path, history)
    log.info("wrote %s", ", ".join(map(str, output)))


if __name__ == "__main__":
    run(app)
