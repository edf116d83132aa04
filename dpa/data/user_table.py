"""A user's own table of labelled responses: column mapping, scales, filters."""

import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpa.config.data import TableConfig
from dpa.data.hub import PlacedRow, Row
from dpa.data.rated import Dropped, Rated, Tally, as_number, count_row, rated_row
from dpa.data.sources import missing_column, read_placed_rows
from dpa.errors import InputError
from dpa.runtime.log import log

#: Of as many digits as Python turns into a number.
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,4000}")


@dataclass(frozen=True)
class Linear:
    """The scale [low, high] mapped to 0..100; high < low reverses it."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Raises ValueError outside the scale."""
        if not min(self.low, self.high) <= value <= max(self.low, self.high):
            raise ValueError(f"outside the scale from {self.low:g} to {self.high:g}")
        return 100 * ((value - self.low) / (self.high - self.low))  # in this order never above 100


@dataclass(frozen=True)
class Quantiles:
    """A value's mean rank among the training file's values, as a share: 0..100.

    100 (#smaller + #equal / 2) / n: ties get the mean of their ranks, and values that the training
    file lacks fall between their neighbours.
    """

    ordered: Sequence[float]

    def __call__(self, value: float) -> float:
        rank = (bisect_left(self.ordered, value) + bisect_right(self.ordered, value)) / 2
        return 100 * rank / len(self.ordered)


Scale = Linear | Quantiles


def table_scales(table: TableConfig) -> dict[str, Scale]:
    """Attribute -> scale. Attributes `from: rank` cost one pass over the training file.

    Quantiles are those of the values in rows that `keep` lets through. Raises InputError when a
    column has no value there.
    """
    ranked = {
        name: column.column
        for name, column in table.attributes.items()
        if column.scale_from == "rank"
    }
    scales: dict[str, Scale] = {
        name: Linear(*column.scale_from)
        for name, column in table.attributes.items()
        if column.scale_from != "rank"
    }
    if not ranked:
        return scales
    kept = _kept_values(table)
    values = {column: array("d") for column in ranked.values()}
    found: dict[str, None] = {}
    for place, row in read_placed_rows(table.train):
        found.update(dict.fromkeys(row))
        if _filtered_by(kept, row) is None:
            for column, numbers in values.items():
                number = table_number(table, row, column, place)
                if number is not None:
                    numbers.append(number)
    _check_columns(table, table.train.path, found)
    for column, numbers in values.items():
        if not numbers:
            raise InputError(
                f"{table.train.path}: column {column!r} has no value to rank "
                f"(data.ratings: {table.name}); correct the column, `keep` or `missing`"
            )
    return scales | {name: Quantiles(sorted(values[column])) for name, column in ranked.items()}


def read_table(
    rows: Iterable[PlacedRow], tally: Tally, table: TableConfig, scales: Mapping[str, Scale]
) -> Iterator[Rated]:
    """Rows of a user's file by its column mapping.

    A cell that is null, NaN, blank or listed in `missing` leaves its attribute out. A JSONL row may
    lack a column, but some row must have it. Ratings of one response by several raters are all
    kept, and counted. Raises InputError naming file, row, column, value and remedy for a cell that
    is no number or is outside its scale.
    """
    found: dict[str, None] = {}
    kept = _kept_values(table)
    seen: dict[str, set] = {column: set() for column in kept}
    responses: set[int] = set()
    place = ""
    for place, row in rows:
        found.update(dict.fromkeys(row))
        for column, values in seen.items():
            value = _canonical(row.get(column))
            if isinstance(value, Hashable) and (value in kept[column] or len(values) < 100):
                values.add(value)
        for rated in count_row(tally, place, _table, row, table, kept, scales):
            known = len(responses)
            responses.add(hash((str(rated.prompt), rated.response)))
            if len(responses) == known:
                tally.notes["of a response that has another rating (all are kept)"] += 1
            yield rated
    file, _, _ = place.rpartition(":")
    _check_columns(table, file, found)
    for column, values in seen.items():
        _check_kept(table, file, column, values)


def _table(
    place: str,
    row: Row,
    table: TableConfig,
    kept: Mapping[str, frozenset],
    scales: Mapping[str, Scale],
) -> Rated:
    if (column := _filtered_by(kept, row)) is not None:
        raise Dropped(f"filter {column}", asked_for=True)
    attributes = {}
    for name, mapping in table.attributes.items():
        number = table_number(table, row, mapping.column, place)
        if number is None:
            continue
        try:
            attributes[name] = scales[name](number)
        except ValueError as error:
            raise InputError(
                f"{place}: column {mapping.column!r} is {number:g}, {error} (data.ratings: "
                f"{table.name}: attributes.{name}.from); correct the value, widen the scale, or "
                "list the value under `missing`"
            ) from None
    return rated_row(place, row, table.prompt, table.response, attributes)


def table_number(table: TableConfig, row: Row, column: str, place: str) -> float | None:
    """The finite number in a cell; None if it is missing. Raises InputError for anything else."""
    value = row.get(column)
    if _is_missing(value) or any(_same(value, mark) for mark in table.missing):
        return None
    number = as_number(value)
    if number is None or not math.isfinite(number):
        raise InputError(
            f"{place}: column {column!r} is {value!r:.80}, not a number (data.ratings: "
            f"{table.name}); correct the value or list it under `missing`"
        )
    return number


def _kept_values(table: TableConfig) -> dict[str, frozenset]:
    """`keep`, to look values up in: it may list thousands."""
    return {column: frozenset(map(_canonical, kept)) for column, kept in table.keep.items()}


def _filtered_by(kept: Mapping[str, frozenset], row: Row) -> str | None:
    """The first `keep` column whose value is not among the allowed ones; None keeps the row."""
    for column, allowed in kept.items():
        value = _canonical(row.get(column))
        if not isinstance(value, Hashable) or value not in allowed:
            return column
    return None


def _check_kept(table: TableConfig, file: str, column: str, seen: set) -> None:
    """Name the allowed values that no row has: in a column of text, true and false are YAML's."""
    absent = [value for value in table.keep[column] if _canonical(value) not in seen]
    texts = sorted(value for value in seen if isinstance(value, str))
    as_text = texts and not {"true", "false"} & set(texts)
    if as_text and any(isinstance(value, bool) for value in absent):
        raise InputError(
            f"{file}: column {column!r} is nowhere true or false, but {texts[0]!r:.80} (data."
            f"ratings: {table.name}: keep.{column}); YAML reads no, off and n as false, yes, on "
            'and y as true: quote them ("no")'
        )
    if absent and seen:
        log.warning(
            "%s: no row has %s in column %r (data.ratings: %s: keep)%s",
            file, ", ".join(map(repr, absent[:5])), column, table.name,
            f", and {len(absent) - 5} more are absent" if len(absent) > 5 else "",
        )  # fmt: skip


def _check_columns(table: TableConfig, path: str, found: Collection[str]) -> None:
    for column in (*table.keep, *(mapping.column for mapping in table.attributes.values())):
        if column not in found:
            raise missing_column(f"{path} (data.ratings: {table.name})", column, found)


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, float) and math.isnan(value))


def _same(value: Any, listed: str | int | float | bool) -> bool:
    """Whether a cell holds a listed value, whatever its type: CSV has only text."""
    return _canonical(value) == _canonical(listed)


def _canonical(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("true", "false"):
            return text.lower()
        if WHOLE_NUMBER.fullmatch(text):  # a float would take 64-bit ids for one another
            return int(text)
        number = as_number(text)
        return text if number is None or math.isnan(number) else number
    return value
