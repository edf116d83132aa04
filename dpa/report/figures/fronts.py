"""Figure 4: validation rewards of every method and iteration, and hypervolume by iteration.

A mark is a row: in the panel `front` a policy under one direction (x and y are mean rewards of the
second and the first objective), in the panel `hypervolume` a policy that can be steered. `source`
says whose it is: `ours`, the `paper`'s, or `extra`: of a user's file, whose label is the method.
Values of ours are means over seeds; standard errors, `correlation` and intervals are from
the bootstrap over seeds and clusters of prompts. `papers` says whether a condition of SteerLM's is
one that the paper evaluates, `outside` whether a direction is outside of those trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from dpa.conditions import papers_places
from dpa.evaluation.bootstrap import (
    LEVEL,
    NAN,
    ONE_SEED,
    REPLICATES,
    DrawnPrompts,
    draw_prompts,
    hypervolumes,
    interval,
    over_seeds,
    policy_points,
    replicate,
)
from dpa.evaluation.validation import are_outside, front_hypervolume
from dpa.registry import METHODS, PolicyKey
from dpa.report.figures.style import (
    PAPER_COLOUR,
    SCORERS,
    ends_text,
    iteration_colours,
    keep_inside,
    label_end,
    page_width,
    text_of_direction,
)

#: Standard deviations to the edge of a LEVEL % region of a normal point: in two dimensions (the
#: root of chi squared's quantile) and in one.
ELLIPSE_RADIUS, BAR_RADIUS = 2.4477, 1.9600
#: Markers and colours of what is not ours, none of which is one of ours.
EXTRA_LOOKS = list(
    zip("dH81x", ("#332288", "#AA4499", "#999933", "#CC6677", "#44AA99"), strict=True)
)
#: What the paper's figure 4 shows.
FIGURE4_OBJECTIVES = ["helpfulness", "verbosity"]


class Found(NamedTuple):
    """A policy in one seed: replicates of its points (1 + replicates, points, k), and v."""

    points: np.ndarray
    indices: np.ndarray
    directions: np.ndarray | None
    takes_conditions: bool
    outside: np.ndarray


# --- The table of marks ----------------------------------------------------------------------


def figure4_marks(
    tables: Sequence[pd.DataFrame],
    objectives: Sequence[str],
    reference: Sequence[float],
    published: pd.DataFrame,
    curve_points: int = 5,
    extra: Mapping[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """All marks: ours from each seed's prompt rewards (dpa.evaluation.bootstrap), the paper's, and
    those of `extra`: label -> points (dpa.evaluation.given_points).

    Of SteerLM's conditions the paper's `curve_points` are told apart (dpa.conditions.curve_places).
    The paper's are left out where the objectives are not the paper's two.
    """
    rows: list[dict] = []
    for by in SCORERS:
        having = [t for t in tables if t.get(f"{by}_{objectives[0]}", pd.Series()).notna().any()]
        seeds = [_found(drawn, objectives, by) for drawn in draw_prompts(having)]
        for policy in dict.fromkeys(policy for seed in seeds for policy in seed):
            found = [seed[policy] for seed in seeds if policy in seed]
            rows += _front_rows(policy, by, found, objectives, curve_points)
            if len(found[0].indices) > 1:
                rows.append(_hypervolume_row(policy, by, found, reference))
    for label, points in (extra or {}).items():
        rows += _extra_rows(label, points, objectives, reference)
    marks = pd.DataFrame(rows)
    if list(objectives) == FIGURE4_OBJECTIVES:
        marks = pd.concat([marks, _published_marks(published, reference)], ignore_index=True)
    whole = dict.fromkeys(["iteration", "direction_index", "seeds"], "Int64")
    told = ["papers", "outside"]
    return marks.astype(whole | dict.fromkeys(told, "boolean")).fillna(dict.fromkeys(told, False))


def _found(drawn: DrawnPrompts, objectives: Sequence[str], by: str) -> dict[PolicyKey, Found]:
    """All policies of a seed; the same prompts are drawn for each."""
    table, prompts, _, weights = drawn
    found = {}
    for (method, iteration), rows in table.groupby(["method", "iteration"], dropna=False):
        policy = (str(method), None if pd.isna(iteration) else int(iteration))
        points = policy_points(table, *policy, objectives, by, prompts)
        found[policy] = Found(
            replicate(weights, points.rewards),
            np.sort(rows["direction_index"].unique()),
            points.directions,
            points.directions is None and points.conditions is not None,
            are_outside(rows).groupby(rows["direction_index"]).first().to_numpy(),
        )
    order = list(METHODS)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1] or 0)))


def _front_rows(
    policy: PolicyKey,
    by: str,
    found: Sequence[Found],
    objectives: Sequence[str],
    curve_points: int,
) -> Iterator[dict]:
    first = found[0]
    papers = [False] * len(first.indices)
    if first.takes_conditions:
        papers = papers_places(len(first.indices), curve_points)
    for i, index in enumerate(first.indices):
        # (replicates, 2), of which the first is the sample itself.
        means = np.stack(
            [over_seeds(np.array([seed.points[:, i, j] for seed in found])) for j in (0, 1)], axis=1
        )
        mean, error = means[0], means[1:].std(axis=0, ddof=1)
        directions = first.directions[i] if first.directions is not None else [NAN] * 9
        yield {
            "panel": "front", "by": by, "source": "ours",
            "method": policy[0], "iteration": policy[1], "direction_index": int(index),
            **{f"v_{name}": v for name, v in zip(objectives, directions, strict=False)},
            "x": mean[1], "y": mean[0], "x_se": error[1], "y_se": error[0],
            "correlation": float(np.corrcoef(means[1:].T)[0, 1]) if error.all() else 0.0,
            "seeds": len(found), "papers": papers[i], "outside": first.outside[i],
        }  # fmt: skip


def _hypervolume_row(
    policy: PolicyKey, by: str, found: Sequence[Found], reference: Sequence[float]
) -> dict:
    inside = [seed.points[:, ~seed.outside] for seed in found]
    volumes = np.array([hypervolumes(points, reference) for points in inside])
    value, low, high = interval(over_seeds(volumes))
    return {
        "panel": "hypervolume", "by": by, "source": "ours", "method": policy[0],
        "iteration": policy[1], "x": policy[1], "y": value, "low": low, "high": high,
        "seeds": len(found),
    }  # fmt: skip


def _extra_rows(
    label: str, points: pd.DataFrame, objectives: Sequence[str], reference: Sequence[float]
) -> Iterator[dict]:
    """The marks of a file's points, by each scorer that it has."""
    single = len(points) == 1
    for by in SCORERS:
        columns = [f"{by}_{name}" for name in objectives]
        if not set(columns) <= set(points):
            continue
        shared = {"by": by, "source": "extra", "method": label}
        for index, row in enumerate(points.to_dict("records")):
            yield {
                "panel": "front", **shared, "direction_index": -1 if single else index,
                **{v: row[v] for name in objectives if (v := f"v_{name}") in row},
                "x": row[columns[1]], "y": row[columns[0]],
            }  # fmt: skip
        if not single:
            volume = front_hypervolume(points[columns].to_numpy(), reference)
            yield {"panel": "hypervolume", **shared, "y": volume}


def _published_marks(published: pd.DataFrame, reference: Sequence[float]) -> pd.DataFrame:
    rows: list[dict] = []
    for (method, iteration), points in published.groupby(
        ["method", "iteration"], dropna=False, sort=False
    ):
        policy = {"method": method, "iteration": None if pd.isna(iteration) else int(iteration)}
        shared = {"by": "r", "source": "paper", **policy}
        # The paper's order runs from the least verbose point, ours from the most helpful direction.
        for index, row in enumerate(points.sort_values("order", ascending=False).itertuples()):
            rows.append(
                {"panel": "front", **shared, "direction_index": index if len(points) > 1 else -1,
                 "x": row.verbosity_reward, "y": row.helpfulness_reward}
            )  # fmt: skip
        if len(points) == 1:
            continue
        volume = front_hypervolume(
            points[["helpfulness_reward", "verbosity_reward"]].to_numpy(), reference
        )
        rows.append({"panel": "hypervolume", **shared, "x": policy["iteration"], "y": volume})
    return pd.DataFrame(rows)


# --- The drawing -----------------------------------------------------------------------------


def draw_figure4(
    marks: pd.DataFrame,
    objectives: Sequence[str],
    title: str,
    published: bool = False,
    uncertainty: str = "ellipses",
) -> Figure:
    """Fronts above, hypervolume below; a second column by the gold scorer where there is one.

    The first two objectives are drawn, the second on the horizontal axis. `published`: the paper's
    marks lie faintly beneath ours.
    """
    ours = marks[marks["source"] == "ours"]
    paper, extra = (marks[marks["source"] == source] for source in ("paper", "extra"))
    looks = dict(zip(extra["method"].unique(), cycle(EXTRA_LOOKS), strict=False))
    scorers = [by for by in SCORERS if (ours["by"] == by).any()]
    if len(scorers) == 1:
        figure, axes = plt.subplots(
            1,
            2,
            figsize=(page_width(), 4.4),
            width_ratios=[3, 2],
            squeeze=False,
            layout="constrained",
        )
        panels = list(zip(axes[0], ["front", "hypervolume"], scorers * 2, strict=True))
    else:
        figure, axes = plt.subplots(
            2,
            len(scorers),
            figsize=(page_width(), 6.8),
            height_ratios=[5, 3],
            layout="constrained",
            sharex="row",
            sharey="row",
        )
        panels = [
            (axes[i, j], panel, by)
            for i, panel in enumerate(["front", "hypervolume"])
            for j, by in enumerate(scorers)
        ]
    between = "\n" if len(scorers) > 2 else " "  # three columns are narrower than the titles
    for panel_axes, panel, by in panels:
        drawn = ours[(ours["panel"] == panel) & (ours["by"] == by)]
        beneath = paper[(paper["panel"] == panel) & (paper["by"] == by)]
        beside = extra[(extra["panel"] == panel) & (extra["by"] == by)]
        if panel == "front":
            if published:
                _draw_paper(panel_axes, beneath)
            _draw_fronts(panel_axes, drawn, objectives, uncertainty)
            _draw_extra(panel_axes, beside, looks)
            panel_axes.set_title(f"validation rewards{between}{SCORERS[by]}")
        else:
            below = beneath if published else beneath[:0]
            _draw_hypervolume(panel_axes, drawn, below, beside, looks)
            panel_axes.set_title(f"hypervolume{between}{SCORERS[by]}")
    # A file need not have every scorer, so no panel has all labels.
    fronts = [axes.get_legend_handles_labels() for axes, panel, _ in panels if panel == "front"]
    named = {name: mark for marks, names in fronts for mark, name in zip(marks, names, strict=True)}
    figure.legend([*named.values()], [*named], loc="outside lower center", ncols=4)
    if title:
        figure.suptitle(title, fontsize=10)
    keep_inside(figure)
    return figure


def _draw_fronts(
    axes: Axes, rows: pd.DataFrame, objectives: Sequence[str], uncertainty: str
) -> None:
    """Curves for methods with several points, points for the others."""
    iterations = sorted(rows.loc[rows["method"] == "dpa", "iteration"].dropna().unique())
    colours = dict(zip(iterations, iteration_colours(len(iterations)), strict=False))
    for method, entry in METHODS.items():
        label, marker, colour = entry.label, entry.marker, entry.colour
        policies = rows[rows["method"] == method]
        if method == "dpa":
            for t in iterations:
                name = f"DPA t={t}" + (" (SteerLM on D2)" if t == 0 else "")
                points = policies[policies["iteration"] == t].sort_values("direction_index")
                _draw_points(axes, points, "o-", colours[t], uncertainty, name, zorder=3 + int(t))
            points = points[~are_outside(points)]
            if t == iterations[-1] and len(points) > 1:
                for place in (0, -1):
                    v = points[[f"v_{name}" for name in objectives]].iloc[place]
                    if not v.isna().any():
                        label_end(axes, points, place, text_of_direction(v))
        elif len(policies):
            # Of a baseline with iterations the last.
            last = policies["iteration"].max()
            points = policies[policies["iteration"].isna() | (policies["iteration"] == last)]
            points = points.sort_values("direction_index")
            style = marker + ("--" if len(points) > 1 else "")
            _draw_points(axes, points, style, colour, uncertainty, label, zorder=3)
    axes.margins(x=0.12)
    axes.set_xlabel(f"{objectives[1]} (mean reward, 0–100)")
    axes.set_ylabel(f"{objectives[0]} (mean reward, 0–100)")


def _draw_extra(axes: Axes, rows: pd.DataFrame, looks: Mapping[str, tuple[str, str]]) -> None:
    """A file's points, joined in its order."""
    for label, points in rows.groupby("method", sort=False):
        marker, colour = looks[str(label)]
        several = len(points) > 1
        axes.plot(
            points["x"], points["y"], marker + ("-." if several else ""), color=colour, label=label,
            markersize=4.5 if several else 8, zorder=3,
        )  # fmt: skip


def _draw_points(
    axes: Axes,
    points: pd.DataFrame,
    style: str,
    colour: Any,
    uncertainty: str,
    label: str,
    zorder: float,
) -> None:
    size = 4.5 if len(points) > 1 else 8
    axes.plot(
        points["x"], points["y"], style, color=colour, label=label, markersize=size, zorder=zorder
    )
    # Hollow, and not joined to the curve: the curve between them is not known.
    outside = points[are_outside(points)]
    points = points[~are_outside(points)]
    axes.plot(
        outside["x"], outside["y"], style.rstrip("-"), color=colour, markerfacecolor="none",
        markersize=size, zorder=zorder,
    )  # fmt: skip
    papers = points[points["papers"].astype(bool)]
    axes.scatter(
        papers["x"], papers["y"], s=80, facecolors="none", edgecolors=colour, linewidths=0.8,
        zorder=zorder,
    )  # fmt: skip
    if uncertainty == "bars":
        axes.errorbar(
            points["x"], points["y"],
            xerr=BAR_RADIUS * points["x_se"], yerr=BAR_RADIUS * points["y_se"],
            fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.5, zorder=2,
        )  # fmt: skip
    elif uncertainty == "ellipses":
        for row in points.itertuples():
            axes.add_patch(_ellipse(row, ELLIPSE_RADIUS, colour))


def _ellipse(row: Any, radius: float, colour: Any) -> Ellipse:
    covariance = np.array(
        [
            [row.x_se**2, row.correlation * row.x_se * row.y_se],
            [row.correlation * row.x_se * row.y_se, row.y_se**2],
        ]
    )
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * radius * np.sqrt(np.clip(values, 0, None))
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    return Ellipse(
        (row.x, row.y), width, height, angle=angle, facecolor=colour, alpha=0.10, zorder=1
    )


def _draw_hypervolume(
    axes: Axes,
    rows: pd.DataFrame,
    paper: pd.DataFrame,
    extra: pd.DataFrame,
    looks: Mapping[str, tuple[str, str]],
) -> None:
    """DPA by iteration with intervals, the paper's beneath it; the other methods beside it, and
    what is not ours (`extra`, by its `looks`) beside them."""
    published = paper[paper["method"] == "dpa"].sort_values("iteration")
    axes.plot(
        published["x"].astype(float), published["y"], "o:", color=PAPER_COLOUR, alpha=0.6, lw=1
    )
    dpa = rows[rows["method"] == "dpa"].sort_values("iteration")
    colours = iteration_colours(len(dpa))
    axes.plot(dpa["x"].astype(float), dpa["y"], "-", color="#777777", linewidth=1, zorder=2)
    for row, colour in zip(dpa.itertuples(), colours, strict=False):
        axes.errorbar(
            float(row.x), row.y, yerr=[[row.y - row.low], [row.high - row.y]], fmt="o",
            color=colour, capsize=2, zorder=3,
        )  # fmt: skip
    others = [m for m in METHODS if m != "dpa" and (rows["method"] == m).any()]
    iterations = sorted({int(t) for t in [*dpa["iteration"], *published["iteration"]]})
    start = iterations[-1] + 1.0 if iterations else 0.0
    for place, method in enumerate(others):
        policies = rows[rows["method"] == method]
        last = policies["iteration"].max()
        row = policies[policies["iteration"].isna() | (policies["iteration"] == last)].iloc[0]
        marker, colour = METHODS[method].marker, METHODS[method].colour
        axes.errorbar(
            start + 0.7 * place, row["y"], yerr=[[row["y"] - row["low"]], [row["high"] - row["y"]]],
            fmt=marker, color=colour, capsize=2, markersize=6, zorder=3,
        )  # fmt: skip
    for place, row in enumerate(extra.itertuples(), len(others)):
        marker, colour = looks[str(row.method)]
        axes.plot(start + 0.7 * place, row.y, marker, color=colour, markersize=6, zorder=3)
    beside = [*(METHODS[m].label for m in others), *extra["method"]]
    if iterations and beside:
        axes.axvline(start - 0.5, color="#CCCCCC", linewidth=0.8)
    places = [*iterations, *(start + 0.7 * place for place in range(len(beside)))]
    axes.set_xticks(places, [*map(str, iterations), *beside])
    for text in axes.get_xticklabels()[len(iterations) :]:
        text.set(rotation=40, ha="right", rotation_mode="anchor", fontsize=7)
    axes.set_xlabel("DPA's iteration t" + (" | other methods" if beside else ""))
    axes.set_ylabel("hypervolume (% of the box)")


def _draw_paper(axes: Axes, rows: pd.DataFrame) -> None:
    iterations = sorted(rows.loc[rows["method"] == "dpa", "iteration"].dropna().unique())
    colours = dict(zip(iterations, iteration_colours(len(iterations)), strict=False))
    label = "published (paper, read off): same colours, dotted"
    for (method, t), points in rows.groupby(["method", "iteration"], dropna=False, sort=False):
        ordered = points.sort_values("direction_index")
        many = len(ordered) > 1
        colour = colours[t] if method == "dpa" else METHODS[str(method)].colour
        axes.plot(
            ordered["x"], ordered["y"], METHODS[str(method)].marker + (":" if many else ""),
            color=colour, alpha=0.45, linewidth=1, markersize=3 if many else 6, label=label,
            zorder=0.5,
        )  # fmt: skip
        label = "_nolegend_"


def figure4_caption(
    marks: pd.DataFrame, experiment: str, objectives: Sequence[str], prompts: int, uncertainty: str
) -> str:
    """What was run, and how to read it."""
    ours = marks[(marks["source"] == "ours") & (marks["panel"] == "front")]
    seeds = int(ours["seeds"].max())
    over = "clusters of prompts" if seeds == 1 else "seeds and clusters of prompts"
    shown = {
        "ellipses": f"Ellipses are {LEVEL:g} % regions of a bootstrap over {over}",
        "bars": f"Bars are {LEVEL:g} % intervals, normal, with standard errors of a bootstrap over "
        f"{over}",
        "none": "No uncertainty is drawn for points",
    }[uncertainty]
    intervals = f"{LEVEL:g} % bootstrap intervals over {over} ({REPLICATES} replicates)"
    of = f"{prompts} validation prompts" + (f", means over {seeds} seeds" if seeds > 1 else "")
    missing = f" {ONE_SEED}" if seeds == 1 else ""
    last = ours.loc[ours["method"] == "dpa", "iteration"].max()
    rings = (
        " Rings are round the conditions of SteerLM's that the paper evaluates."
        if ours["papers"].any()
        else ""
    )
    hollow = (
        " Hollow marks are directions outside of those that policies were trained on; no other"
        " number counts them."
        if ours["outside"].any()
        else ""
    )
    given = marks.loc[marks["source"] == "extra", "method"].unique()
    from_file = (
        f" The numbers of {' and '.join(f'“{label}”' for label in given)} were given"
        " (figures.extra); how sure they are is not known."
        if len(given)
        else ""
    )
    through = "" if pd.isna(last) else f" t = 0 to {last}"
    curve = ours[(ours["method"] == "dpa") & (ours["iteration"] == last) & ~are_outside(ours)]
    ends = ends_text(objectives) if curve[f"v_{objectives[0]}"].notna().sum() > 1 else ""
    return f"""\
**Figure 4 (experiment {experiment}).** Mean {objectives[0]} against mean {objectives[1]} on {of}.
A curve is one policy under its directions: DPA's iterations{through} and the other methods that
can be steered; a point is a policy that cannot.{ends}{rings}{hollow}{better_side(ours, objectives)}
{shown}.
Hypervolume is the share of the box between the reference corner and the ideal that a policy's
points dominate, with {intervals}.{from_file}{missing}"""


def better_side(ours: pd.DataFrame, objectives: Sequence[str]) -> str:
    """Which way is better in a front, as a sentence, by what the evaluated directions ask; nothing
    where none is.
    """
    asked = ours.loc[~are_outside(ours), [f"v_{name}" for name in objectives[:2]]].dropna()
    if not len(asked):
        return ""
    sides = [
        words[0] if (v >= 0).all() else words[1] if (v <= 0).all() else ""
        for words, (_, v) in zip([("up", "down"), ("right", "left")], asked.items(), strict=True)
    ]
    open_sides = [
        axis for side, axis in zip(sides, ["up or down", "left or right"], strict=True) if not side
    ]
    known = " and ".join(filter(None, sides))
    better = [f"far {known} is better"] if known else []
    better += [f"whether {axis} is better depends on the direction" for axis in open_sides]
    text = ", and ".join(better)
    return f" {text[0].upper()}{text[1:]}."
