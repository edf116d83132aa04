"""Scores of a user's own table of prompts and responses. No torch here."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from dpa.artefacts.jsonl import encode
from dpa.artefacts.outputs import atomic
from dpa.config.data import SourceConfig
from dpa.data.hub import PlacedRow, Row
from dpa.data.sources import as_prompt, cell, read_placed_rows
from dpa.errors import InputError
from dpa.reward.inputs import Group
from dpa.reward.scorer import Scorer, named_scores
from dpa.runtime.log import Progress
from dpa.text.prompts import Conversation

#: Rows of a table that are scored together.
ROWS_PER_CHUNK = 512

#: So many rows, and their groups with the rows' numbers.
TableChunk = tuple[list[PlacedRow], list[tuple[Group, list[int]]]]


def score_table(
    model: Scorer, source: Path, output: Path, prompt_column: str, response_column: str
) -> int:
    """Write a table's rows, in file order, with one column more per output; returns their number.

    Formats follow from the suffixes. Raises InputError naming the place of a row without prompt or
    response, or whose columns include an output's name already.
    """
    table = SourceConfig(path=str(source))

    def pair(placed: PlacedRow) -> tuple[Conversation, str]:
        return _pair(placed, prompt_column, response_column, model.names)

    def chunks() -> Iterator[TableChunk]:
        rows = read_placed_rows(table)
        while chunk := list(islice(rows, ROWS_PER_CHUNK)):
            yield chunk, by_prompt([pair(placed) for placed in chunk])

    def scored() -> Iterator[Row]:
        stream = model.score_stream(chunks(), lambda chunk: [group for group, _ in chunk[1]])
        for (rows, groups), arrays in stream:
            scores = {
                place: outputs
                for (_, places), array in zip(groups, arrays, strict=True)
                for place, outputs in zip(places, array, strict=True)
            }
            for number, (place, row) in enumerate(rows):
                yield row | named_scores(model.names, scores[number], place)
            progress.advance(len(rows))

    # All rows are looked at first: a bad one at the end should not cost the work before it.
    progress = Progress(sum(1 for _ in map(pair, read_placed_rows(table))), "rows")
    return write_rows(output, scored(), like=source, added=model.names)


def by_prompt(pairs: Sequence[tuple[Conversation, str]]) -> list[tuple[Group, list[int]]]:
    """Groups of (prompt, response) pairs with the same prompt, which share work, and the places of
    their pairs."""
    places: dict[bytes, list[int]] = {}
    for i, (prompt, _) in enumerate(pairs):
        places.setdefault(msgspec.json.encode(prompt), []).append(i)
    return [((pairs[g[0]][0], [pairs[i][1] for i in g]), g) for g in places.values()]


def _pair(
    placed: PlacedRow, prompt_column: str, response_column: str, names: Sequence[str]
) -> tuple[Conversation, str]:
    place, row = placed
    prompt, response = cell(row, prompt_column, place), cell(row, response_column, place)
    if not isinstance(prompt, str):
        prompt = as_prompt(prompt, prompt_column, place)
    if prompt is None or not isinstance(response, str):
        empty = prompt_column if prompt is None else response_column
        raise InputError(f"{place}: column {empty!r} has no text; remove the row or fill it in")
    if taken := sorted(set(names) & set(row)):
        raise InputError(f"{place}: the table has columns {taken} already; rename them")
    return prompt, response


def write_rows(path: Path, rows: Iterable[Row], like: Path, added: Sequence[str]) -> int:
    """Write a table atomically in the format of its suffix; returns the number of rows.

    A parquet file made from a parquet file `like` keeps its column types; `added` names the float
    columns that come on top. In CSV, values that are not scalars are JSON.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"{path}: unknown kind of file; known: {', '.join(WRITERS)}")
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    with atomic(path) as partial:
        WRITERS[path.suffix](partial, counted(), like, added)
    return count


def _write_jsonl(path: Path, rows: Iterable[Row], like: Path, added: Sequence[str]) -> None:
    with open(path, "wb") as file:
        file.writelines(map(encode, rows))


def _write_csv(path: Path, rows: Iterable[Row], like: Path, added: Sequence[str]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            try:
                writer.writerow({key: _csv_cell(value) for key, value in row.items()})
            except ValueError as error:
                raise InputError(f"{path}: {error}; write .jsonl, whose rows may differ") from None


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _write_parquet(path: Path, rows: Iterable[Row], like: Path, added: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = None
    if like.suffix == ".parquet":
        schema = pyarrow.parquet.read_schema(like)
        for name in added:
            schema = schema.append(pyarrow.field(name, pyarrow.float64()))
    writer = None
    waiting = iter(rows)
    try:
        while some := list(islice(waiting, ROWS_PER_CHUNK)):
            table = pyarrow.Table.from_pylist(some, schema=schema)
            if writer is None:
                schema = table.schema
                writer = pyarrow.parquet.ParquetWriter(path, schema)
            writer.write_table(table)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: {error}; write .jsonl, whose rows may differ") from None
    finally:
        if writer is not None:
            writer.close()


#: Suffix -> writer of rows.
WRITERS: dict[str, Callable[[Path, Iterable[Row], Path, Sequence[str]], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
