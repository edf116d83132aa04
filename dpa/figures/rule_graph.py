"""The rule graph: which rules of the workflow feed which, laid out and drawn without graphviz."""

import re
from collections.abc import Iterable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from dpa.errors import InputError
from dpa.figures.costs import COLOURS, work_of
from dpa.figures.style import STYLE, WIDTH

Edge = tuple[str, str]


def read_dot(text: str) -> list[Edge]:
    """Edges of `snakemake --rulegraph dot`, from a rule to one that needs it; no target rules."""
    names = dict(re.findall(r'^\s*(\d+)\s*\[label = "(\w+)"', text, re.MULTILINE))
    found = re.findall(r"^\s*(\d+) -> (\d+)", text, re.MULTILINE)
    if not found:
        raise InputError("no edges in the rule graph; give the output of snakemake --rulegraph dot")
    edges = [(names[a], names[b]) for a, b in found]
    needed = {a for a, _ in edges}
    # A target rule, such as all, makes nothing: it is needed by none and has no verb.
    return [(a, b) for a, b in edges if b in needed or "_" in b]


def layers(edges: Iterable[Edge]) -> tuple[dict[str, int], set[Edge]]:
    """Depth of each rule below the first, and the edges that close a loop.

    The loop of the method (sample, score, select, fine-tune, sample again) is cut where it returns.
    """
    after: dict[str, list[str]] = {}
    for a, b in sorted(edges):
        after.setdefault(a, []).append(b)
        after.setdefault(b, [])
    closing: set[Edge] = set()
    done: list[str] = []
    open_rules: set[str] = set()

    def visit(rule: str) -> None:
        open_rules.add(rule)
        for following in after[rule]:
            if following in open_rules:
                closing.add((rule, following))
            elif following not in done:
                visit(following)
        open_rules.remove(rule)
        done.append(rule)

    fed = {b for bs in after.values() for b in bs}
    for start in sorted(after, key=lambda rule: (rule in fed, rule)):
        if start not in done:
            visit(start)
    depth = dict.fromkeys(after, 0)
    for rule in reversed(done):
        for following in after[rule]:
            if (rule, following) not in closing:
                depth[following] = max(depth[following], depth[rule] + 1)
    return depth, closing


def essential(edges: Iterable[Edge], closing: set[Edge]) -> list[Edge]:
    """The edges that no longer path implies, and those that close a loop."""
    kept = [edge for edge in edges if edge not in closing]
    after: dict[str, set[str]] = {}
    for a, b in kept:
        after.setdefault(a, set()).add(b)

    def reachable(rule: str) -> set[str]:
        found: set[str] = set()
        queue = list(after.get(rule, ()))
        while queue:
            following = queue.pop()
            if following not in found:
                found.add(following)
                queue.extend(after.get(following, ()))
        return found

    below = {rule: reachable(rule) for rule in after}
    implied = {(a, b) for a in after for c in after[a] for b in below.get(c, ()) if b in after[a]}
    return sorted(edge for edge in {*kept, *closing} if edge not in implied)


def rule_graph_marks(edges: Iterable[Edge]) -> pd.DataFrame:
    """A row per rule, with its place, and one per edge: kind is rule, edge or loop."""
    edges = list(edges)
    depth, closing = layers(edges)
    kept = essential(edges, closing)
    rows: dict[int, list[str]] = {}
    for rule in sorted(depth):
        rows.setdefault(depth[rule], []).append(rule)
    place = {rule: float(i) for names in rows.values() for i, rule in enumerate(names)}
    near: dict[str, list[str]] = {}
    for a, b in kept:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    for sweep in range(8):
        order = sorted(rows) if sweep % 2 == 0 else sorted(rows, reverse=True)
        for level in order:
            names = rows[level]
            wanted = {
                r: sum(place[n] for n in near.get(r, [r])) / len(near.get(r, [r])) for r in names
            }
            names.sort(key=lambda rule: (wanted[rule], rule))
            middle = sum(wanted.values()) / len(names)
            for i, rule in enumerate(names):
                place[rule] = middle + i - (len(names) - 1) / 2
    marks = [
        {"kind": "rule", "rule": rule, "x": place[rule], "y": depth[rule]}
        for rule in sorted(depth, key=lambda rule: (depth[rule], place[rule]))
    ]
    marks += [
        {"kind": "loop" if edge in closing else "edge", "rule": edge[0], "feeds": edge[1]}
        for edge in kept
    ]
    return pd.DataFrame(marks)


def draw_rule_graph(marks: pd.DataFrame, title: str) -> Figure:
    """Rules from top to bottom, coloured by their work; dashed, the way to another iteration."""
    rules = marks[marks["kind"] == "rule"].set_index("rule")
    with plt.rc_context(STYLE):
        down = int(rules["y"].max()) + 1
        figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.52 * down), layout="constrained")
        axes.axis("off")
        for edge in marks[marks["kind"] != "rule"].itertuples():
            _draw_edge(axes, rules, edge.rule, str(edge.feeds), edge.kind == "loop")
        for rule, at in rules.iterrows():
            axes.text(
                at["x"], at["y"], str(rule), ha="center", va="center", fontsize=6.3, zorder=3,
                bbox={"boxstyle": "round,pad=0.35", "facecolor": "white",
                      "edgecolor": COLOURS[work_of(str(rule))], "linewidth": 1.4},
            )  # fmt: skip
        axes.set_xlim(rules["x"].min() - 0.6, rules["x"].max() + 0.6)
        axes.set_ylim(down - 0.5, -0.5)
        handles = [
            plt.Line2D([], [], color=colour, linewidth=3, label=work)
            for work, colour in COLOURS.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=7.5)
        figure.suptitle(title, fontsize=10)
    return figure


def _draw_edge(axes: Axes, rules: pd.DataFrame, start: str, end: str, loop: bool) -> None:
    (x0, y0), (x1, y1) = (rules.loc[rule, ["x", "y"]].astype(float) for rule in (start, end))
    far = abs(y1 - y0) > 1.5
    bend = -0.4 if loop else (0.15 if x1 >= x0 else -0.15) if far else 0.0
    # From the lower edge of a box to the upper one of the next.
    gap = -0.2 if loop else 0.2
    axes.add_patch(
        FancyArrowPatch(
            (x0, y0 + gap), (x1, y1 - gap), connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>",
            mutation_scale=7, shrinkA=0, shrinkB=0, color="#777777", linewidth=0.8,
            linestyle="--" if loop else "-", zorder=1,
        )
    )  # fmt: skip


def rule_graph_caption(experiment: str) -> str:
    return f"""\
**Rule graph (experiment {experiment}).** The rules of the workflow that this experiment runs,
each above those that need what it makes; an arrow that a longer path implies is left out, and the
dashed one is the way into the next iteration."""
