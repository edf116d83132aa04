"""Draw figure 4: validation rewards of every method and iteration.

Rule: plot_pareto_front. Example:

    python -m scripts.plot_pareto_front --rewards evaluation/validation_rewards.csv \
        --objectives helpfulness,verbosity --title quickstart --output figures/figure4.png
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import log, make_app, run

app = make_app()


@app.command()
def main(
    rewards: Annotated[Path, typer.Option(help="validation_rewards.csv")],
    objectives: Annotated[str, typer.Option(help="Comma-separated; the first two are drawn.")],
    title: Annotated[str, typer.Option()],
    output: Annotated[list[Path], typer.Option(help="Files to write (.pdf, .svg, .png).")],
) -> None:
    """Draw figure 4."""
    from dpa.evaluation import read_table
    from dpa.figures import plot_figure4, save_figure
    from dpa.provenance import write_sidecar

    save_figure(plot_figure4(read_table(rewards), objectives.split(","), title), output)
    for path in output:
        write_sidecar(path, [rewards])
    log.info("wrote %s", ", ".join(map(str, output)))


if __name__ == "__main__":
    run(app)
