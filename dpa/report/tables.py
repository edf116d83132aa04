"""Tables for readers: the same cells as Markdown and as LaTeX (booktabs), and data as CSV."""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dpa.artefacts.cells import no_formula
from dpa.artefacts.outputs import hold, write_text
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.runtime.log import visible

#: What LaTeX takes for a command, and what its default fonts lack.
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "−": "$-$", "±": r"$\pm$", "·": r"$\cdot$", "–": "--", "…": r"\ldots{}", "≥": r"$\geq$",
    "≤": r"$\leq$", "²": "$^2$", "ρ": r"$\rho$",
}  # fmt: skip


#: What Markdown takes for more than text; of what is more than a character long it is the last that
#: is escaped, or the first where that alone would still be a link.
MARKDOWN_SYNTAX = re.compile(
    r"[\\|<*`_~$]|&(?=#|\w+;)|(?<=\])[(\[]|:(?=//)|(?<=[wW]{3})\.|(?<=[\w.+-])@(?=\w)"
)
MARKDOWN_ESCAPES = {"<": "&lt;", "&": "&amp;"}


class Table(NamedTuple):
    """A titled table with what its columns mean.

    `text` are the columns that hold running text; of those in `best` the best number is bold, which
    is the highest or the lowest (max or min).
    """

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Collection[int] = ()
    best: Mapping[int, Callable] = {}

    def best_cells(self) -> set[tuple[int, int]]:
        """(row, column) of what is bold: as it is printed, so that equal numbers are all."""
        found = set()
        for column, choose in self.best.items():
            numbers = {
                i: n for i, row in enumerate(self.rows) if (n := leading_number(row[column]))
            }
            if len(set(numbers.values())) > 1:
                best = choose(numbers.values(), key=float)
                found |= {
                    (i, column) for i, number in numbers.items() if float(number) == float(best)
                }
        return found


def leading_number(cell: str) -> str:
    """The number that a cell begins with, as Python reads it; empty without one."""
    found = re.match(r"[-+−]?[\d,]*\.?\d+", cell)
    return found[0].replace(",", "").replace("−", "-") if found else ""


def csv_text(table: pd.DataFrame, float_format: str | None = "%.6g") -> str:
    """A data frame as CSV; no text is a spreadsheet's formula (`plain_text` is the inverse).

    pandas does not quote a lone carriage return, which policies may write, but reads it as the end
    of a line: where there is one everything is quoted.
    """
    table = table.copy()
    for name, column in table.items():
        if pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column):
            safe = [no_formula(cell) for cell in column]
            table[name] = pd.Series(safe, index=column.index, dtype=column.dtype)
    text = table.to_csv(index=False, float_format=float_format)
    if "\r" not in text:
        return text
    return table.to_csv(index=False, float_format=float_format, quoting=csv.QUOTE_ALL)


def markdown(heading: str, lead: str, tables: Iterable[Table]) -> str:
    """A page of tables: a heading, a sentence on all of them, then each."""
    parts = [f"# {heading}", lead]
    for table in tables:
        if table.title:
            parts.append(f"## {markdown_text(table.title)}")
        if table.note:
            parts.append(markdown_text(table.note))
        best = table.best_cells()
        lines = [list(map(markdown_text, table.header)), ["---"] * len(table.header)]
        for i, row in enumerate(table.rows):
            cells = [markdown_text(cell) for cell in row]
            lines.append([f"**{c}**" if (i, j) in best else c for j, c in enumerate(cells)])
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_text(text: str) -> str:
    """Plain text as Markdown (CommonMark, and GitHub's) that shows the same, on one line.

    It cannot end a cell, a row or a paragraph, nor be HTML, an entity, emphasis, code, a link, an
    image, an address that becomes a link, or a formula. Brackets alone are none of these.
    """
    text = " ".join(visible(text).split())
    return MARKDOWN_SYNTAX.sub(lambda m: MARKDOWN_ESCAPES.get(m[0]) or f"\\{m[0]}", text)


def latex(heading: str, lead: str, tables: Iterable[Table]) -> str:
    r"""The same for LaTeX: a `table` for each, to be read in with \input (needs booktabs)."""
    parts = [f"% {heading}. Needs \\usepackage{{booktabs}}."]
    for table in tables:
        columns = "".join(
            "p{0.5\\linewidth}" if i in table.text else "l" if i == 0 else "r"
            for i in range(len(table.header))
        )
        title = f"{heading}: {table.title}" if table.title else heading
        caption = f"{title}. {lead} {table.note}"
        best = table.best_cells()
        cells = [
            [f"\\textbf{{{latex_text(c)}}}" if (i, j) in best else latex_text(c)
             for j, c in enumerate(row)]
            for i, row in enumerate(table.rows)
        ]  # fmt: skip
        # A table without rows has its columns all the same.
        style = pd.DataFrame(cells, columns=range(len(table.header))).style
        style.hide(axis="index").relabel_index(list(map(latex_text, table.header)), axis="columns")
        parts.append(
            style.to_latex(
                column_format=columns,
                hrules=True,
                caption=latex_text(caption),
                position_float="centering",
            ).rstrip()
        )
    return "\n\n".join(parts) + "\n"


def latex_text(text: str) -> str:
    """Plain text as LaTeX that prints the same, on one line.

    A bracket or a star that begins a row would be an argument of the line break before it.
    """
    text = " ".join(visible(text).split())
    escaped = "".join(LATEX.get(character, character) for character in text)
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def write_tables(
    folder: Path,
    texts: Mapping[str, str],
    inputs: Iterable[Path],
    rows: int,
    **details: Any,
) -> None:
    """Write one table's texts by file name, the first of them its data, each with a sidecar."""
    inputs = list(inputs)
    first = next(iter(texts))
    for name in texts:
        hold(folder / name)
    for name, text in texts.items():
        write_text(folder / name, text)
        counted: dict[str, Any] = {} if name == first else {"counted_in": first}
        write_sidecar(folder / name, inputs, RowCounts.all_kept(rows), **counted, **details)
