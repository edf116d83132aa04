"""Tables for readers: the same cells as Markdown and as LaTeX (booktabs), and data as CSV."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dpa.artefacts.files import write_text
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar

#: What LaTeX takes for a command, and what its default fonts lack.
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "−": "$-$", "±": r"$\pm$", "·": r"$\cdot$", "–": "--", "…": r"\ldots{}", "≥": r"$\geq$",
    "≤": r"$\leq$", "²": "$^2$", "ρ": r"$\rho$",
}  # fmt: skip


class Table(NamedTuple):
    """A titled table with what its columns mean; `text` are the columns that hold running text."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Collection[int] = ()


def csv_text(table: Any) -> str:
    """A data frame as CSV, numbers with six digits.

    pandas does not quote a lone carriage return, which policies may write, but reads it as the end
    of a line: where there is one everything is quoted.
    """
    text = table.to_csv(index=False, float_format="%.6g")
    if "\r" not in text:
        return text
    return table.to_csv(index=False, float_format="%.6g", quoting=csv.QUOTE_ALL)


def markdown(heading: str, lead: str, tables: Iterable[Table]) -> str:
    """A page of tables: a heading, a sentence on all of them, then each."""
    parts = [f"# {heading}", lead]
    for table in tables:
        if table.title:
            parts.append(f"## {table.title}")
        if table.note:
            parts.append(table.note)
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        parts.append("\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def _cell(text: str) -> str:
    """Text that cannot end a cell, a row or a paragraph, nor be taken for HTML."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").replace("*", "\\*").replace("`", "\\`").replace("_", "\\_")


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
        style = pd.DataFrame([list(map(latex_text, row)) for row in table.rows]).style
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
    """Plain text as LaTeX that prints the same, on one line."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


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
    for name, text in texts.items():
        write_text(folder / name, text)
        counted: dict[str, Any] = {} if name == first else {"counted_in": first}
        write_sidecar(folder / name, inputs, RowCounts.all_kept(rows), **counted, **details)
