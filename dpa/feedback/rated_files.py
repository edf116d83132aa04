"""People as annotators: what they are given to rate, and the files that they give back."""

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dpa.artefacts.cells import no_formula
from dpa.artefacts.outputs import write_text
from dpa.config.data import SourceConfig
from dpa.data.hub import Row
from dpa.data.rated import Tally, as_number
from dpa.data.scales import NATIVE_SCALES
from dpa.data.sources import cell, read_placed_rows
from dpa.errors import InputError
from dpa.feedback.annotators import Annotator, rating_points, scale_ends
from dpa.feedback.choose import response_hash
from dpa.records import ToRate
from dpa.text.prompts import Conversation

#: What a row of a rated file is matched by.
MATCHED_BY = ("prompt_id", "response_hash")


def write_rating_sheet(path: Path, items: Sequence[ToRate], attributes: Sequence[str]) -> None:
    """The samples as CSV, with an empty column for each attribute.

    Texts are for reading only: those that a spreadsheet would take for a formula have an apostrophe
    in front, and control characters are replaced.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*MATCHED_BY, "prompt", "response", *attributes])
    for item in items:
        texts = (_readable(_as_text(item.prompt)), _readable(item.response))
        writer.writerow([item.prompt_id, item.response_hash, *texts, *("" for _ in attributes)])
    write_text(path, text.getvalue())


def _as_text(prompt: Conversation) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in prompt)


def _readable(text: str) -> str:
    shown = "".join(c if c >= " " or c in "\n\t" else "\ufffd" for c in text)
    return no_formula(shown)


def file_annotator(
    folder: Path, attributes: Sequence[str], scales: Mapping[str, tuple[float, float]]
) -> Annotator:
    """An annotator who reads what people have rated: JSONL, CSV or parquet files in a folder.

    A row has the prompt's id, the response's hash (or the response), and a column for some of the
    `attributes`; an empty cell is no rating. Of several ratings of a response it takes the mean.
    Rows that match nothing that was asked for are counted. Raises InputError when there are no
    files yet, no column of an attribute, or a cell that is no rating on its scale.
    """

    def rate(items: Sequence[ToRate], tally: Tally) -> list[dict[str, float]]:
        known = [name for name in attributes if name in scales or name in NATIVE_SCALES]
        if not folder.is_dir() or not any(folder.iterdir()):
            raise InputError(
                f"{folder}: no ratings yet; rate the {len(items)} responses of to_rate.csv (or "
                f".jsonl, which lies beside), put the file into that folder, and rerun. Columns: "
                f"{_columns(known, scales)}"
            )
        asked = {(item.prompt_id, item.response_hash) for item in items}
        ratings: dict[tuple[str, str], dict[str, list[float]]] = {key: {} for key in asked}
        columns: set[str] = set()
        for place, row in read_placed_rows(SourceConfig(path=str(folder))):
            columns.update(row)
            tally.row_counts.read += 1
            key = _key(row, place)
            if key not in asked:
                tally.row_counts.drop("matches no response that was asked for")
            elif found := _ratings(row, known, scales, place):
                tally.notes["further ratings of a response"] += bool(ratings[key])
                for name, points in found.items():
                    ratings[key].setdefault(name, []).append(points)
            else:
                tally.row_counts.drop("not rated")
        if not columns & set(known):
            raise InputError(
                f"{folder}: no column of an attribute; it may have: {_columns(known, scales)}"
            )
        return [
            {name: sum(some) / len(some) for name, some in ratings[item_key(item)].items()}
            for item in items
        ]

    return rate


def item_key(item: ToRate) -> tuple[str, str]:
    """What tells a sample from all others."""
    return item.prompt_id, item.response_hash


def _columns(names: Collection[str], scales: Mapping[str, tuple[float, float]]) -> str:
    ends = {name: scale_ends(name, scales) for name in names}
    return ", ".join(f"{name} ({low:g} to {high:g})" for name, (low, high) in ends.items())


def _key(row: Row, place: str) -> tuple[str, str]:
    identity = str(cell(row, "prompt_id", place))
    if row.get("response_hash"):
        return identity, str(row["response_hash"])
    return identity, response_hash(str(cell(row, "response", place)))


def _ratings(
    row: Row, names: Collection[str], scales: Mapping[str, tuple[float, float]], place: str
) -> dict[str, float]:
    found = {}
    for name in names:
        value = row.get(name)
        if value is None or not str(value).strip() or value != value:
            continue
        number = as_number(value)
        try:
            if number is None or not math.isfinite(number):
                raise ValueError("not a number")
            found[name] = rating_points(name, number, scales)
        except ValueError as error:
            raise InputError(
                f"{place}: column {name!r} is {value!r:.80}, {error}; correct it, or leave the "
                "cell empty"
            ) from None
    return found
