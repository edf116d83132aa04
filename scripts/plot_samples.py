"""Draw figure 1 (one prompt under several directions), response lengths, and reward by length.

Rule: plot_samples. Example:

    python -m scripts.plot_samples --prompts data/prompts/validation.jsonl \
        --scored evaluation/scored_by/reward_model/dpa-4.jsonl \
        --scored evaluation/scored_by/reward_model/dpo.jsonl --experiment quickstart \
        --output-figures figures --output-tables tables

A file's stem names its policy; files of several seeds with the same stem count as one policy, and
texts are the first one's. --judged are the judge's scores of the same samples, in the same order.
Writes figure1, response_length and reward_against_length (.pdf, .svg, .png, .csv, caption .md),
figure 1 as a table (figure1.csv, .md, .tex) and samples.csv: the responses to all of --shown.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ExperimentOption,
    FigureStyleOption,
    GoldOption,
    JudgedOption,
    ObjectivesOption,
    OutputFiguresOption,
    OutputTablesOption,
    PromptsOption,
    ScoredOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    scored: ScoredOption,
    prompts: PromptsOption,
    experiment: ExperimentOption,
    output_figures: OutputFiguresOption,
    output_tables: OutputTablesOption,
    shown: Annotated[str, typer.Option(help="Positions of prompts; figure 1 has the first.")] = "0",
    judged: JudgedOption = [],  # noqa: B006
    objectives: ObjectivesOption = None,
    gold: GoldOption = None,
    figure_style: FigureStyleOption = None,
) -> None:
    """Draw figure 1, response lengths, and reward against length."""
    from dpa.config.figures import FigureStyleConfig
    from dpa.config.steering import ObjectivesConfig
    from dpa.evaluation.validation import gold_scorer, pair_judged
    from dpa.report.figures import samples as figures
    from dpa.report.figures.style import drawn_in, write_figure
    from dpa.report.tables import csv_text, latex, markdown, write_tables

    style = read_section(FigureStyleConfig, figure_style, "figure-style", "figures.style")
    asked = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    names = [objective.name for objective in asked]
    chosen = figures.choose_prompts(prompts, [int(position) for position in shown.split(",")])
    ids = [prompt.prompt_id for prompt in chosen]
    golden = figures.golden_rewards(prompts, gold_scorer(gold, asked))
    judges = pair_judged(scored, judged)
    by_policy: dict = {}
    for path in scored:
        found = figures.read_responses(path, ids, judges.get(path), golden)
        by_policy.setdefault(path.stem, []).append(found)
    policies = [figures.pooled(found) for found in by_policy.values()]
    rows = figures.sample_rows(chosen, policies, names)
    first = figures.figure1_rows(rows)
    lengths = figures.length_marks(policies, names)
    rewards = figures.reward_length_marks(policies, names)

    title = f"Figure 1, experiment {experiment}"
    caption = figures.figure1_caption(first, experiment)
    drawings: dict = {
        "figure1": (figures.draw_figure1, first, title, caption),
        "response_length": (
            figures.draw_lengths,
            lengths,
            f"Response length, experiment {experiment}",
            figures.length_caption(experiment),
        ),
        "reward_against_length": (
            figures.draw_reward_length,
            rewards,
            f"Reward against length, experiment {experiment}",
            figures.reward_length_caption(experiment),
        ),
    }
    inputs = [*scored, *judged, prompts]
    for name, (draw, marks, heading, text) in drawings.items():
        with drawn_in(style):
            figure = draw(marks, names, style.title_of(heading))
            write_figure(output_figures, name, figure, marks, text, inputs, style)
    page = (title, "", [figures.figure1_table(first, names)])
    texts = {
        "figure1.csv": csv_text(first),
        "figure1.md": markdown(*page),
        "figure1.tex": latex(*page),
    }
    write_tables(output_tables, texts, inputs, len(first))
    write_tables(output_tables, {"samples.csv": csv_text(rows)}, inputs, len(rows))
    log.info("wrote %s in %s", ", ".join(drawings), output_figures)


if __name__ == "__main__":
    run_app(app)
