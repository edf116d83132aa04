"""Draw figure 4: validation rewards of every method and iteration, and their hypervolume.

Rule: plot_pareto_front. Example (one seed; repeat --prompt-rewards for more):

    python -m scripts.plot_pareto_front --prompt-rewards evaluation/prompt_rewards.parquet \
        --objectives helpfulness,verbosity --hypervolume-reference 0,100 \
        --published results/published/figure4_validation_rewards.csv --experiment quickstart \
        --output-dir figures

writes figure4.pdf, .svg, .png, its marks (figure4.csv) and its caption (figure4.md). The paper's
marks are always in the table; --draw-published draws them too.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    prompt_rewards: Annotated[list[Path], typer.Option(help="prompt_rewards.parquet of a seed.")],
    objectives: Annotated[str, typer.Option(help="Comma-separated; the first two are drawn.")],
    hypervolume_reference: Annotated[str, typer.Option(help="Worst corner, comma-separated.")],
    published: Annotated[Path, typer.Option(help="The paper's figure 4 (CSV).")],
    experiment: Annotated[str, typer.Option(help="Its name, for title and caption.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the figure's files.")],
    draw_published: Annotated[bool, typer.Option(help="Draw the paper's marks faintly.")] = False,
    uncertainty: Annotated[str, typer.Option(help="ellipses, bars or none.")] = "ellipses",
    dpi: Annotated[int, typer.Option(min=50, help="Of the PNG file.")] = 200,
) -> None:
    """Draw figure 4."""
    import pandas as pd

    from dpa.evaluation.bootstrap import common_prompts, read_prompt_rewards
    from dpa.report.figures.fronts import draw_figure4, figure4_caption, figure4_marks
    from dpa.report.figures.style import write_figure

    names = objectives.split(",")
    reference = [float(value) for value in hypervolume_reference.split(",")]
    tables = [read_prompt_rewards(path, names) for path in prompt_rewards]
    marks = figure4_marks(tables, names, reference, pd.read_csv(published))
    title = f"Figure 4, experiment {experiment}"
    figure = draw_figure4(marks, names, title, draw_published, uncertainty)
    prompts = min(len(common_prompts(table)) for table in tables)
    caption = figure4_caption(marks, experiment, names, prompts, uncertainty)
    inputs = [*prompt_rewards, published]
    write_figure(output_dir, "figure4", figure, marks, caption, inputs, dpi)
    log.info("wrote %s", output_dir / "figure4.pdf")


if __name__ == "__main__":
    run(app)
