"""What all figures share: one style, colour-blind safe, and files that are byte-stable.

A figure is a file in each format, the table of its marks (CSV), and a caption (Markdown).
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from dpa.artefacts.outputs import atomic, hold, write_text
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.figures import FigureStyleConfig
from dpa.errors import InputError
from dpa.evaluation.validation import SCORER_NAMES
from dpa.report.tables import csv_text
from dpa.runtime.log import visible

# Whatever a user's own matplotlibrc says.
matplotlib.rcdefaults()

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "svg.hashsalt": "dpa",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}

#: Of boxes: whiskers, quartiles, the median.
QUANTILES = {"p5": 5, "q25": 25, "median": 50, "q75": 75, "p95": 95}
#: Column prefix of a reward -> who gives it.
SCORERS = {prefix: f"by the {name}" for prefix, name in SCORER_NAMES.items()}
#: The colour of what the paper published.
PAPER_COLOUR = "#8C8C8C"


@contextmanager
def drawn_in(style: FigureStyleConfig) -> Iterator[None]:
    """Draw in our style, with the user's width and settings. Raises InputError for wrong ones."""
    settings: Any = {**STYLE, "figure.figsize": (style.width, style.width / 2)} | style.rcparams
    try:
        settings = matplotlib.RcParams(settings)
    except (KeyError, ValueError) as error:
        reason = " ".join(str(error.args[0]).split())
        raise InputError(f"figures.style.rcparams: {reason}") from None
    with plt.rc_context(settings):
        yield


def page_width() -> float:
    """Inches."""
    return plt.rcParams["figure.figsize"][0]


def iteration_colours(count: int) -> np.ndarray:
    """Colours of DPA's iterations, light to dark."""
    return plt.colormaps["viridis"](np.linspace(0.85, 0.0, max(count, 2)))


def direction_colours(count: int) -> np.ndarray:
    """Colours of directions, from the first objective alone to the last trade-off."""
    return plt.colormaps["plasma"](np.linspace(0.0, 0.75, max(count, 2)))


def text_of_direction(direction: Iterable[float], names: Sequence[str] = ()) -> str:
    """`(0.80, −0.60)`, with names `helpfulness 0.80, verbosity −0.60`."""
    weights = [f"{v:.2f}".replace("-", "−") for v in direction]
    if names:
        return ", ".join(f"{name} {weight}" for name, weight in zip(names, weights, strict=True))
    return f"({', '.join(weights)})"


def ends_text(objectives: Sequence[str]) -> str:
    """What label_end writes, as a sentence of a caption."""
    weights = ", ".join(objectives)
    return f" The numbers at the ends of DPA's curve are its directions' weights ({weights})."


def label_end(axes: Axes, points: pd.DataFrame, place: int, text: str) -> None:
    """Write beside a curve's first (0) or last (-1) point, on the side away from the other end."""
    x, y = points["x"].iloc[place], points["y"].iloc[place]
    other = points["x"].iloc[-1 - place]
    on_right = x > other or (x == other and place == 0)
    axes.annotate(
        text, (x, y), xytext=(7 if on_right else -7, 0), textcoords="offset points", fontsize=6.5,
        ha="left" if on_right else "right", va="center", zorder=9,
    )  # fmt: skip


def keep_inside(figure: Figure) -> None:
    """Move labels of curves' ends that cross an edge of the panel inside, above their point.

    To be called when everything is drawn: how far a label reaches depends on the layout.
    """
    figure.draw_without_rendering()
    points_per_pixel = 72 / figure.dpi
    for axes in figure.axes:
        for text in axes.texts:
            if not isinstance(text, Annotation):
                continue
            label, frame = text.get_window_extent(), axes.get_window_extent()
            left, right = frame.x0 - label.x0, label.x1 - frame.x1
            if (over := max(left, right)) > 0:
                shift = (over * points_per_pixel + 2) * (1 if left > 0 else -1)
                x, y = text.get_position()
                text.set_position((x + shift, y + 9))


def write_figure(
    folder: Path,
    name: str,
    figure: Figure,
    marks: pd.DataFrame,
    caption: str,
    inputs: Iterable[Path],
    style: FigureStyleConfig,
) -> None:
    """Write `name` in the style's formats, its marks as .csv and its caption as .md."""
    table, text = folder / f"{name}.csv", folder / f"{name}.md"
    paths = [folder / f"{name}.{kind}" for kind in style.formats]
    for path in (table, text, *paths):
        hold(path)
    write_text(table, csv_text(marks))
    rows = RowCounts.all_kept(len(marks))
    write_sidecar(table, inputs, rows)
    write_text(text, textwrap.fill(" ".join(caption.split()), 100) + "\n")
    save_figure(figure, paths, style.dpi)
    for path in (text, *paths):
        write_sidecar(path, [table], rows, counted_in=table.name)


def save_figure(figure: Figure, paths: Sequence[Path], dpi: int) -> None:
    """Save in the formats of the paths' suffixes, without dates, each atomically.

    Texts are made visible: an SVG with control characters is no XML.
    """
    for text in figure.findobj(Text):
        if (shown := visible(text.get_text())) != text.get_text():
            text.set_text(shown)
    for path in paths:
        metadata = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
        with atomic(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], metadata=metadata, dpi=dpi)
    plt.close(figure)
