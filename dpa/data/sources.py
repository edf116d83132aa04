"""Rows of raw data: local JSONL, JSON, CSV and parquet files, folders of them, hub data sets.

Every row comes with its place ("file:line"), so that a mapping can say where it went wrong.
Reading streams, JSON excepted (a list has no lines).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from dpa.artefacts.jsonl import BYTE_ORDER_MARK, check_keys, decode_lines, read_lines
from dpa.artefacts.outputs import MAKER, PARTIAL, SIDECAR, note_read
from dpa.artefacts.row_counts import RowCounts
from dpa.config.data import SourceConfig
from dpa.data.hub import PlacedRow, Row, hub_rows
from dpa.errors import InputError
from dpa.records import Turn
from dpa.runtime.log import log
from dpa.runtime.reading import (
    MAX_LINE,
    MAX_LIST,
    check_regular,
    read_document,
)
from dpa.text.prompts import Conversation

#: Rows of a parquet file that are in memory at a time.
PARQUET_BATCH = 256


def read_rows(source: SourceConfig) -> Iterator[Row]:
    """The rows of a source, in file order. Raises InputError as `read_placed_rows` does."""
    for _, row in read_placed_rows(source):
        yield row


def read_placed_rows(source: SourceConfig) -> Iterator[PlacedRow]:
    """(place, row) of a source, in file order; a folder's files in the order of their names.

    A place is `file:line` (JSONL, CSV) or `file: row n`. Raises InputError naming the place and the
    remedy when there is no such file or data set, a row does not parse, or there are no rows.
    """
    if source.revision is None:
        note_read(Path(source.path))
        rows = _local_rows(Path(source.path))
    else:
        rows = hub_rows(source)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{source.path}: no rows; give a file with data or remove it")
    yield first
    yield from rows


def cell(row: Row, column: str, place: str) -> Any:
    """The row's value in a column. Raises InputError naming the columns found if there is none."""
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected an object with {column!r}, found {row!r:.80}")
    if column not in row:
        raise missing_column(place, column, row)
    return row[column]


def missing_column(place: str, column: str, found: Iterable[str]) -> InputError:
    """The error for a column that is not there."""
    return InputError(f"{place}: no column {column!r}; columns found: {', '.join(found) or 'none'}")


def as_prompt(value: Any, column: str, place: str) -> Conversation | None:
    """A prompt from a cell: a string, or a list of {role, content} turns that the user ends.

    A lone user turn becomes a string, so that it is the same prompt as the string; turns of others
    without text are left out. None when the prompt is empty. Raises InputError for anything else.
    """
    if value is None or isinstance(value, str):
        return value if value and value.strip() else None
    try:
        turns = msgspec.convert(_plain_turns(value), list[Turn])
    except msgspec.ValidationError as error:
        raise InputError(
            f"{place}: column {column!r} is neither a string nor a list of "
            f"{{role, content}} turns: {error}"
        ) from None
    turns = [turn for turn in turns if turn.content.strip() or turn.role == "user"]
    if turns and turns[-1].role != "user":
        raise InputError(
            f"{place}: column {column!r} ends with a turn of the {turns[-1].role}; "
            "a prompt ends with the user's"
        )
    if not turns or not turns[-1].content.strip():
        return None
    return turns[0].content if len(turns) == 1 else turns


def as_response(value: Any, column: str, place: str) -> str | None:
    """A response from a cell; None when it is empty. Raises InputError unless it is a string."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{place}: column {column!r} is a {type(value).__name__}, not a string")
    return value if value and value.strip() else None


def _local_rows(path: Path) -> Iterator[PlacedRow]:
    for file in _files(path):
        reader = _reader(file)
        if reader is None:
            raise InputError(f"{file}: unknown kind of file; known: {', '.join(READERS)}")
        yield from reader(file)


def _files(path: Path) -> list[Path]:
    """A file, or all files of a folder and the folders in it that can be read."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _is_data(path, file))
        files = [file for file in found if _reader(file)]
        if not files:
            raise InputError(f"{path}: no file of a known kind here; known: {', '.join(READERS)}")
        _name_left_out(path, tuple(str(f.relative_to(path)) for f in found if not _reader(f)))
        return files
    if not path.exists():
        raise InputError(
            f"{path}: no such file; paths are relative to the working directory "
            f"({Path.cwd()}), and a hub data set needs both revision and split"
        )
    return [path]


def _is_data(folder: Path, file: Path) -> bool:
    """Whether a folder's file is meant as data: neither hidden, nor what we put beside data."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and not file.name.endswith((SIDECAR, PARTIAL, MAKER))


@cache
def _name_left_out(folder: Path, names: tuple[str, ...]) -> None:
    """Say once which files of a folder are not read."""
    if names:
        log.warning(
            "%s: %d files of other kinds are left out: %s%s",
            folder, len(names), ", ".join(names[:5]), ", ..." if len(names) > 5 else "",
        )  # fmt: skip


def _reader(path: Path) -> Callable[[Path], Iterator[PlacedRow]] | None:
    name = path.name.lower()
    return next((read for end, read in READERS.items() if name.endswith(end)), None)


def _read_jsonl(path: Path) -> Iterator[PlacedRow]:
    for line, row in enumerate(decode_lines(path, dict), 1):
        yield f"{path}:{line}", row


def _read_json(path: Path) -> Iterator[PlacedRow]:
    content = read_document(path, MAX_LIST).removeprefix(BYTE_ORDER_MARK)
    try:
        rows = msgspec.json.decode(content, type=list[dict])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: expected a list of objects: {error}") from None
    check_keys(content, rows, str(path))
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", row


def _read_csv(path: Path) -> Iterator[PlacedRow]:
    import csv

    csv.field_size_limit(MAX_LINE)  # responses are longer than the default 128 KiB
    # Decoded line by line: a file opened as text does not know in which line it failed.
    lines = csv.reader(_decoded(path, read_lines(path)), strict=True)
    start = 1
    header: list[str] | None = None
    try:
        for fields in lines:
            place, start = f"{path}:{start}", lines.line_num + 1
            if not fields:
                continue
            if header is None:
                header = _header(fields, place)
            elif len(fields) != len(header):
                raise InputError(
                    f"{place}: {len(fields)} fields, the header has {len(header)}; "
                    "quote fields that contain commas or line breaks"
                )
            else:
                yield place, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{start}: {error}") from None


def _decoded(path: Path, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: not UTF-8 ({error}); convert the file") from None


def _header(fields: list[str], place: str) -> list[str]:
    if twice := sorted({name for name in fields if fields.count(name) > 1}):
        raise InputError(f"{place}: the header has {twice} more than once; rename the columns")
    return fields


def _read_parquet(path: Path) -> Iterator[PlacedRow]:
    import pyarrow
    import pyarrow.parquet

    check_regular(path)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _header(file.schema_arrow.names, str(path))
            rows = _rows_at_a_time(path, file.metadata)
            for batch in file.iter_batches(batch_size=rows):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable parquet file: {error}") from None


def _rows_at_a_time(path: Path, metadata: Any) -> int:
    """How many rows of a parquet file to decompress together: fewer where they are long.

    Raises InputError for rows of more than reading.MAX_LINE bytes, which a small file can hold.
    """
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    longest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    if longest > MAX_LINE:
        raise InputError(
            f"{path}: rows of {longest >> 20} MiB, more than {MAX_LINE >> 20}; split or leave out "
            "what is so long"
        )
    return max(min(PARQUET_BATCH, MAX_LINE // max(longest, 1)), 1)


#: End of a file's name -> its reader.
READERS: dict[str, Callable[[Path], Iterator[PlacedRow]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": _read_parquet,
}


def read_messages(source: SourceConfig, row_counts: RowCounts) -> Iterator[list[dict[str, str]]]:
    """Conversations of a source with a `messages` column, as plain {role, content} dictionaries.

    Turns without text (the assistant called a tool) are left out and counted in `row_counts`, and
    whole rows are where it is the user who says nothing, or where content is not text. Raises
    InputError naming the row when the column is missing or is not a list of turns.
    """
    for place, row in read_placed_rows(source):
        messages = cell(row, "messages", place)
        try:
            turns = [_plain_turn(turn) for turn in messages]
        except (TypeError, KeyError, AttributeError):
            raise InputError(
                f"{place}: messages must be a list of {{role, content}}, found {messages!r:.80}"
            ) from None
        said = [turn for turn in turns if turn["content"] is None or turn["content"].strip()]
        if any(turn["content"] is None for turn in said):
            reason = "content that is not text"
        elif any(turn["role"] == "user" for turn in turns if turn not in said):
            reason = "a turn of the user without text"
        else:
            if len(said) < len(turns):
                row_counts.shorten("a turn without text")
            yield said
            continue
        row_counts.read += 1
        row_counts.drop(reason)


def _plain_turns(value: Any) -> Any:
    """Turns as _plain_turn has them; what is no turn, or none, as it is."""
    if not isinstance(value, list):
        return value
    known = {"role", "content"}
    return [_plain_turn(t) if isinstance(t, dict) and known <= t.keys() else t for t in value]


def _plain_turn(turn: Any) -> dict[str, Any]:
    """A turn's role and text: of parts of text all, "" of null, None of what is not text.

    Raises TypeError, KeyError or AttributeError unless it is a mapping with both.
    """
    content = turn.get("content") if "tool_calls" in turn else turn["content"]
    parts = content if isinstance(content, list) else [""] if content is None else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    is_text = all(isinstance(text, str) for text in texts)
    return {"role": str(turn["role"]), "content": "".join(map(str, texts)) if is_text else None}
