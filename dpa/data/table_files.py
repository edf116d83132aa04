"""Tables as files, in the format of the file's name: what comes out holds what was given.

A table is looked at as a whole before it is written, chunk by chunk, so that what a format cannot
hold is known before the rows' scores are.
"""

import csv
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dpa.artefacts.jsonl import encode
from dpa.data.hub import PlacedRow, Row
from dpa.errors import InputError

#: Rows of a parquet file that are written together.
ROWS_PER_GROUP = 512


class TableFile(ABC):
    """A table that is going to be written: its rows' columns are the union of all rows' columns."""

    #: Whether all rows have to be looked at a second time.
    unsure = False

    def __init__(self, like: Path) -> None:
        #: Columns in the order in which they occur.
        self.columns: dict[str, None] = {}

    def look_at(self, rows: Sequence[PlacedRow]) -> None:
        """Look at some of the rows. Raises InputError naming the place that cannot be written."""
        for place, row in rows:
            self.columns.update(dict.fromkeys(row))
            self._look_at_row(place, row)

    def _look_at_row(self, place: str, row: Row) -> None:  # noqa: B027 (parquet has columns)
        """Raise InputError for a row that cannot be written."""

    def look_again_at(self, rows: Sequence[PlacedRow]) -> None:  # noqa: B027
        """Look at rows a second time, where `unsure`."""

    def losses(self) -> str | None:
        """What the format does not hold as it was given, in words."""
        return None

    @abstractmethod
    def write(self, path: Path, rows: Iterable[Row], added: Sequence[str]) -> None:
        """Write all rows, each with the `added` columns of numbers on top."""


class JsonLines(TableFile):
    """JSONL: rows may differ. NaN is null, for JSON has none."""

    nan = 0

    def _look_at_row(self, place: str, row: Row) -> None:
        for column, value in row.items():
            if infinite := [n for n in _floats(value) if math.isinf(n)]:
                raise InputError(
                    f"{place}: column {column!r} is {infinite[0]}, which JSON has not; write "
                    ".parquet or .csv, or correct the value"
                )
            self.nan += sum(map(math.isnan, _floats(value)))
        try:
            encode(_without_nan(row))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(f"{place}: cannot be written as JSON: {error}") from None

    def losses(self) -> str | None:
        return f"{self.nan} NaN are written as null, for JSON has no NaN" if self.nan else None

    def write(self, path: Path, rows: Iterable[Row], added: Sequence[str]) -> None:
        with open(path, "wb") as file:
            file.writelines(encode(_without_nan(row)) for row in rows)


class Csv(TableFile):
    """CSV: a row without a column has an empty cell; values that are no scalars are JSON."""

    quoting: Any = csv.QUOTE_MINIMAL

    def _look_at_row(self, place: str, row: Row) -> None:
        for column, value in row.items():
            try:
                text = str(_csv_cell(value))
                text.encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise InputError(
                    f"{place}: column {column!r} cannot be written as CSV: {error}"
                ) from None
            if "\r" in text or "\r" in column:  # Python leaves it bare, readers end the line there
                self.quoting = csv.QUOTE_ALL

    def write(self, path: Path, rows: Iterable[Row], added: Sequence[str]) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, [*self.columns, *added], lineterminator="\n", quoting=self.quoting
            )
            writer.writeheader()
            for row in rows:
                writer.writerow({key: _csv_cell(value) for key, value in row.items()})


class Parquet(TableFile):
    """Parquet: a column has one type, which holds the values of all rows; missing cells are null.

    What is made of a parquet file keeps its types.
    """

    def __init__(self, like: Path) -> None:
        import pyarrow.parquet

        super().__init__(like)
        #: Column -> its type so far; None where a parquet file gives them.
        self.types: dict[str, Any] = {}
        self.given = None
        if like.is_file() and like.suffix.lower() == ".parquet":
            self.given = pyarrow.parquet.read_schema(like)

    def look_at(self, rows: Sequence[PlacedRow]) -> None:
        super().look_at(rows)
        if self.given is not None:
            return
        for column in self.columns:
            found = self._array(column, rows, None).type
            before = self.types.setdefault(column, found)
            if found != before:
                self.types[column] = self._union(column, rows, before, found)
                self.unsure = True

    def look_again_at(self, rows: Sequence[PlacedRow]) -> None:
        for column, type in self.types.items():  # some had to grow for later rows
            self._array(column, rows, type)

    def _array(self, column: str, rows: Sequence[PlacedRow], type: Any) -> Any:
        import pyarrow

        values = [row.get(column) for _, row in rows]
        try:
            return pyarrow.array(values, type)
        except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
            raise self._refused(column, rows, type) from None

    def _union(self, column: str, rows: Sequence[PlacedRow], before: Any, found: Any) -> Any:
        import pyarrow

        fields = [pyarrow.schema([(column, type)]) for type in (before, found)]
        try:
            return pyarrow.unify_schemas(fields, promote_options="permissive").field(0).type
        except pyarrow.ArrowException:
            raise self._refused(column, rows, before) from None

    def _refused(self, column: str, rows: Sequence[PlacedRow], type: Any) -> InputError:
        """The error for the first row whose value does not go with those before it."""
        import pyarrow

        seen: list[Any] = []
        for place, row in rows:
            value = row.get(column)
            for beside in ([value], [*seen[-1:], value]):
                try:
                    pyarrow.array(beside, type)
                except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
                    why = "no parquet column holds it" if beside == [value] else "others differ"
                    return InputError(
                        f"{place}: column {column!r} is {value!r:.80}, and a parquet column has "
                        f"one type, of at most 64 bits ({why}); write .jsonl, whose rows may "
                        "differ, or correct the value"
                    )
            if value is not None:
                seen = [value]
        place, _ = rows[0]
        return InputError(
            f"{place}: column {column!r} has values of several types from here on, and a parquet "
            "column has one; write .jsonl, whose rows may differ, or correct the values"
        )

    def write(self, path: Path, rows: Iterable[Row], added: Sequence[str]) -> None:
        import pyarrow
        import pyarrow.parquet

        schema = self.given or pyarrow.schema(list(self.types.items()))
        for name in added:
            schema = schema.append(pyarrow.field(name, pyarrow.float64()))
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            waiting = iter(rows)
            while some := list(islice(waiting, ROWS_PER_GROUP)):
                writer.write_table(pyarrow.Table.from_pylist(some, schema=schema))


#: Suffix -> how such a table is written.
TABLE_FILES: dict[str, type[TableFile]] = {".jsonl": JsonLines, ".csv": Csv, ".parquet": Parquet}


def table_file(path: Path, like: Path) -> TableFile:
    """The table that becomes `path`, from the rows of `like`.

    Raises InputError for an unknown suffix.
    """
    kind = TABLE_FILES.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: unknown kind of file; known: {', '.join(TABLE_FILES)}")
    return kind(like)


def _csv_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _floats(value: Any) -> list[float]:
    """The floats of a value, wherever they are in it."""
    if isinstance(value, float):
        return [value]
    if isinstance(value, dict):
        return [n for item in value.values() for n in _floats(item)]
    if isinstance(value, list):
        return [n for item in value for n in _floats(item)]
    return []


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value
