"""What a run cost: time by rule, and tokens by training stage."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dpa.evaluation.costs import job_costs, method_cost
from dpa.report.figures.style import page_width
from dpa.report.tables import Table

#: The verb of a rule's name -> kind of work, and its colour.
WORK = {
    "pretrain": "training", "train": "training", "finetune": "training",
    "retrain": "training", "probe": "training",
    "sample": "sampling", "generate": "sampling",
    "score": "scoring", "annotate": "scoring", "judge": "scoring",
    "evaluate": "evaluation", "measure": "evaluation", "average": "training",
}  # fmt: skip
COLOURS = {
    "training": "#0072B2", "sampling": "#E69F00", "scoring": "#009E73", "evaluation": "#CC79A7",
    "data": "#999999",
}  # fmt: skip
#: Rules that took less, in all their jobs, have no bar: they are in the table.
LEAST_SECONDS = 0.5
TOKENS = {"tokens_sampled": ("sampled", "#E69F00"), "tokens_trained": ("trained on", "#0072B2")}


def kind_of_work(rule: str) -> str:
    """The kind of work that a rule does."""
    return WORK.get(rule.partition("_")[0], "data")


def rule_costs(runs: Sequence[Path]) -> pd.DataFrame:
    """Jobs, wall and CPU seconds, memory by rule: means over runs (seeds), memory their largest."""
    tables = [pd.DataFrame(job_costs(run)) for run in runs]
    by_run = pd.concat(
        table.groupby("rule", sort=False)[["jobs", "seconds", "cpu_seconds"]].sum(min_count=1)
        for table in tables
    )
    memory = pd.concat(tables).groupby("rule")["max_rss_mb"].max()
    table = by_run.groupby(level=0).mean().join(memory).reset_index()
    table.insert(1, "work", table["rule"].map(kind_of_work))
    order = table["work"].map(list(COLOURS).index)
    table = table.assign(order=order).sort_values(["order", "seconds"], ascending=[True, False])
    return table.drop(columns="order").reset_index(drop=True)


def stage_costs(runs: Sequence[Path], method_stages: dict[str, list[str]]) -> pd.DataFrame:
    """Tokens, responses and seconds of each stage that a method is made of: means over runs."""
    stages = list(dict.fromkeys(stage for some in method_stages.values() for stage in some))
    tables = [
        pd.DataFrame([{"stage": stage, **method_cost(run, [stage])._asdict()} for stage in stages])
        for run in runs
    ]
    return pd.concat(tables).groupby("stage", sort=False).mean().reset_index()


def cost_marks(rules: pd.DataFrame, stages: pd.DataFrame) -> pd.DataFrame:
    """Both as one table of bars: panel, name, quantity, value."""
    first = rules.rename(columns={"rule": "name"}).melt(
        ["name", "work"], ["seconds"], var_name="quantity"
    )
    second = stages.rename(columns={"stage": "name"}).melt(["name"], [*TOKENS], var_name="quantity")
    return pd.concat([first.assign(panel="rule"), second.assign(panel="stage")], ignore_index=True)[
        ["panel", "name", "work", "quantity", "value"]
    ]


def draw_costs(marks: pd.DataFrame, title: str) -> Figure:
    """Left, seconds by rule; right, tokens by stage."""
    rules = marks[marks["panel"] == "rule"]
    rules = rules[rules["value"] >= max(LEAST_SECONDS, rules["value"].max() / 200)]
    stages = marks[marks["panel"] == "stage"]
    names = list(dict.fromkeys(stages["name"]))
    height = 1.2 + 0.17 * max(len(rules), len(names))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(page_width(), max(height, 2.6)), layout="constrained"
    )
    _draw_rules(left, rules)
    _draw_stages(right, stages, names)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _draw_rules(axes: Axes, rules: pd.DataFrame) -> None:
    places = range(len(rules))
    axes.barh(places, rules["value"], color=[COLOURS[w] for w in rules["work"]], height=0.7)
    for place, seconds in zip(places, rules["value"], strict=True):
        axes.text(seconds, place, f" {seconds:,.0f}", va="center", fontsize=6.5)
    axes.set_yticks(places, rules["name"], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.14, y=0.02)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("wall time of all jobs (seconds)")
    handles = [Patch(color=COLOURS[w], label=w) for w in COLOURS if (rules["work"] == w).any()]
    axes.legend(handles=handles, fontsize=7, loc="lower right")


def _draw_stages(axes: Axes, stages: pd.DataFrame, names: Sequence[str]) -> None:
    for shift, (quantity, (label, colour)) in zip((-0.18, 0.18), TOKENS.items(), strict=True):
        values = stages[stages["quantity"] == quantity].set_index("name")["value"].loc[names]
        axes.barh(
            [i + shift for i in range(len(names))], values.fillna(0) / 1e3, height=0.34,
            color=colour, label=label,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.02)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("response tokens (thousands)")
    axes.legend(fontsize=7, loc="best")


def cost_tables(rules: pd.DataFrame, stages: pd.DataFrame) -> list[Table]:
    def cells(row: dict, forms: dict[str, str]) -> list[str]:
        return ["–" if pd.isna(row[c]) else f"{row[c]:{form}}" for c, form in forms.items()]

    by_rule = {"jobs": ",.0f", "seconds": ",.1f", "cpu_seconds": ",.1f", "max_rss_mb": ",.0f"}
    by_stage = {
        "tokens_sampled": ",.0f", "responses_scored": ",.0f", "tokens_trained": ",.0f",
        "seconds": ",.1f",
    }  # fmt: skip
    total = {"rule": "all", **{c: rules[c].sum() for c in ("jobs", "seconds", "cpu_seconds")}}
    total["max_rss_mb"] = rules["max_rss_mb"].max()
    return [
        Table(
            "By rule",
            "Wall and CPU seconds are summed over a rule's jobs, which may have run side by side; "
            "memory is that of its largest job.",
            ["rule", "jobs", "wall seconds", "CPU seconds", "largest job (MB)"],
            [[row["rule"], *cells(row, by_rule)] for row in [*rules.to_dict("records"), total]],
        ),
        Table(
            "By training stage",
            "Tokens are those of responses, in training counted once for all epochs. Seconds are "
            "those of sampling, scoring, selecting and training.",
            ["stage", "tokens sampled", "responses scored", "tokens trained on", "seconds"],
            [[row["stage"], *cells(row, by_stage)] for row in stages.to_dict("records")],
        ),
    ]


def cost_caption(rules: pd.DataFrame, experiment: str, runs: int) -> str:
    over = f", means over {runs} seeds" if runs > 1 else ""
    hours = rules["seconds"].sum() / 3600
    return f"""\
**Cost (experiment {experiment}).** Left, wall time by rule, summed over its jobs: {hours:.2f}
hours of jobs in all{over}; rules of less than {LEAST_SECONDS} s or half a percent of the longest
are left to the table. Right, response tokens sampled and trained on in each stage; of
policies that sample while they train every response is both. Times are those of the machine that
it ran on, and of what else ran there."""
