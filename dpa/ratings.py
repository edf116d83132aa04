"""Labelled responses: from the raw formats to `records.Rating`, every attribute on 0-100.

One reader per format: HelpSteer, UltraFeedback, BeaverTails, and `table`, a user's own file with a
column mapping. A violation of the format (a missing column, a value outside a declared scale)
raises InputError with its place; a single bad row (an empty response, no rating) is dropped and
counted.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from dpa.cli import log
from dpa.config import FORMAT_ATTRIBUTES, Data, Ratings, Source, Table
from dpa.errors import InputError
from dpa.prompts import Conversation, normalise, prompt_id
from dpa.provenance import Losses
from dpa.records import Rating
from dpa.sources import (
    PlacedRow,
    Row,
    as_prompt,
    as_response,
    cell,
    missing_column,
    read_placed_rows,
)

#: UltraFeedback's mark for a rating that was not given.
NOT_RATED = "N/A"
#: The highest overall_score: also what a bug upstream made of the lowest.
HIGHEST_OVERALL = 10


class Rated(NamedTuple):
    """A response with its ratings on 0-100; attributes that were not rated are absent."""

    prompt: Conversation
    response: str
    attributes: dict[str, float]


@dataclass
class Tally:
    """What happened to a data set: rows dropped (`losses`), and rows kept but changed (`notes`)."""

    losses: Losses = field(default_factory=Losses)
    notes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        notes = "".join(f"; {count} {note}" for note, count in sorted(self.notes.items()))
        return f"{self.losses}{notes}"

    def as_dict(self) -> dict:
        """Counts for the sidecar."""
        return {**self.losses.as_dict(), "notes": dict(sorted(self.notes.items()))}


class Dropped(Exception):
    """A response is left out, for the reason given; `asked_for` if the configuration says so."""

    def __init__(self, reason: str, asked_for: bool = False):
        super().__init__(reason)
        self.reason, self.asked_for = reason, asked_for


def read_ratings(
    data: Data, held_out: Collection[str], tallies: dict[str, Tally]
) -> Iterator[Rating]:
    """All ratings of the configuration, data set by data set in the order of their files.

    A rating is for validation if it is from a `validation` file or its prompt_id is in `held_out`,
    so no prompt is in both splits if `held_out` has the prompts of all validation files. `tallies`
    is filled while reading: data set -> counts. Raises InputError for rows that violate their
    format, when a data set loses more than `data.max_dropped_fraction` or more than half of its
    training responses to `held_out`, and when nothing is left to train on.
    """
    training = 0
    for section in data.ratings:
        tally = tallies.setdefault(section.name, Tally())
        for rating in _read_section(section, data.drop_sources, held_out, tally):
            training += rating.split == "train"
            yield rating
        tally.losses.check(data.max_dropped_fraction, f"data.ratings: {section.name}")
    if data.ratings and not training:
        counts = "; ".join(f"{name}: {tally}" for name, tally in tallies.items())
        raise InputError(f"data.ratings: no ratings left to train on ({counts})")


def validation_prompt_ids(data: Data) -> set[str]:
    """Identities of the prompts in the `validation` files of all rating data sets."""
    found = set()
    for section in data.ratings:
        if section.validation is None:
            continue
        column = _prompt_column(section)
        for place, row in read_placed_rows(section.validation):
            prompt = as_prompt(cell(row, column, place), column, place)
            if prompt is not None:
                found.add(prompt_id(prompt))
    return found


def _read_section(
    section: Ratings | Table, drop_sources: Collection[str], held_out: Collection[str], tally: Tally
) -> Iterator[Rating]:
    read = _reader(section, drop_sources)
    sources: list[tuple[Literal["train", "validation"], Source | None]] = [
        ("train", section.train),
        ("validation", section.validation),
    ]
    for file_split, source in sources:
        if source is None:
            continue
        count = moved = 0
        for rated in read(read_placed_rows(source), tally):
            identity = prompt_id(rated.prompt)
            split = "validation" if identity in held_out else file_split
            count += 1
            if split != file_split:
                moved += 1
                tally.notes["moved to validation: prompt held out"] += 1
            yield Rating(
                prompt_id=identity,
                prompt=rated.prompt,
                response=rated.response,
                attributes=rated.attributes,
                dataset=section.name,
                split=split,
            )
        if moved > count / 2:
            raise InputError(
                f"data.ratings: {section.name}: {moved} of {count} training responses have a "
                "prompt that is held out for validation, as if its files were split by rows; leave "
                "out its `validation`, or split it by prompts"
            )


def _prompt_column(section: Ratings | Table) -> str:
    if isinstance(section, Table):
        return section.prompt
    return "instruction" if section.format == "ultrafeedback" else "prompt"


Reader = Callable[[Iterable[PlacedRow], Tally], Iterator[Rated]]


def _reader(section: Ratings | Table, drop_sources: Collection[str]) -> Reader:
    if isinstance(section, Table):
        scales = table_scales(section)
        return lambda rows, tally: read_table(rows, tally, section, scales)
    if section.format == "ultrafeedback":
        return lambda rows, tally: read_ultrafeedback(rows, tally, drop_sources)
    return {"helpsteer": read_helpsteer, "beavertails": read_beavertails}[section.format]


def _count(
    tally: Tally, place: str, rate: Callable[..., Rated], *arguments: Any
) -> Iterator[Rated]:
    """The response that `rate` makes, or none, counted by the reason for dropping it."""
    tally.losses.read += 1
    try:
        rated = rate(place, *arguments)
    except Dropped as dropped:
        if dropped.reason not in tally.losses.dropped and not dropped.asked_for:
            log.info("%s: dropped (%s); others are only counted", place, dropped.reason)
        tally.losses.drop(dropped.reason, dropped.asked_for)
    else:
        yield rated


def _rated(
    place: str, row: Row, prompt_column: str, response_column: str, attributes: dict[str, float]
) -> Rated:
    prompt = as_prompt(cell(row, prompt_column, place), prompt_column, place)
    response = as_response(cell(row, response_column, place), response_column, place)
    if prompt is None:
        raise Dropped("empty prompt")
    if response is None:
        raise Dropped("empty response")
    for what, text in (("prompt", normalise(prompt)), ("response", response)):
        if "\0" in text:
            raise Dropped(f"NUL character in the {what}")
    if not attributes:
        raise Dropped("no rating")
    return Rated(prompt, response, attributes)


# --- HelpSteer -----------------------------------------------------------------------------------


def read_helpsteer(rows: Iterable[PlacedRow], tally: Tally) -> Iterator[Rated]:
    """Rows of nvidia/HelpSteer: prompt, response and five integers 0..4, each mapped to 20s + 10.

    (The published reward model's scale; its inverse is (r - 10) / 20.)
    """
    for place, row in rows:
        yield from _count(tally, place, _helpsteer, row)


def _helpsteer(place: str, row: Row) -> Rated:
    attributes = {}
    for name in FORMAT_ATTRIBUTES["helpsteer"]:
        column = name.removeprefix("helpsteer-")
        rating = native_rating(cell(row, column, place), column, 0, 4)
        if rating is not None:
            attributes[name] = 20 * rating + 10
    return _rated(place, row, "prompt", "response", attributes)


# --- UltraFeedback -------------------------------------------------------------------------------


def read_ultrafeedback(
    rows: Iterable[PlacedRow], tally: Tally, drop_sources: Collection[str] = ()
) -> Iterator[Rated]:
    """Rows of openbmb/UltraFeedback: a prompt with rated completions, nominally four.

    The four ratings are strings "1".."5" or "N/A" (absent), mapped to 20s - 10; overall_score is
    1..10, repaired (see `repair_overall_score`) and mapped to 10s - 5: the midpoints of five and
    ten bins, as for HelpSteer (ours). The completions' custom system prompts are not part of the
    prompt. Completions are counted, not prompts; the tally notes how many each prompt has.
    """
    for place, row in rows:
        completions = cell(row, "completions", place)
        if not isinstance(completions, list):
            raise InputError(f"{place}: column 'completions' is not a list of completions")
        tally.notes[f"prompts with {len(completions)} completions"] += 1
        asked_for = cell(row, "source", place) in drop_sources
        for number, completion in enumerate(completions or [None], 1):
            where = f"{place}, completion {number}"
            yield from _count(tally, where, _ultrafeedback, row, completion, asked_for, tally)


def _ultrafeedback(
    place: str, row: Row, completion: Row | None, asked_for: bool, tally: Tally
) -> Rated:
    if asked_for:
        raise Dropped(f"source {row['source']}", asked_for=True)
    if completion is None:
        raise Dropped("prompt without completions")
    ratings = _aspect_ratings(cell(completion, "annotations", place), f"{place}, annotations")
    attributes = {f"ultrafeedback-{aspect}": 20 * s - 10 for aspect, s in ratings.items()}
    overall = native_rating(
        cell(completion, "overall_score", place), "overall_score", 1, HIGHEST_OVERALL
    )
    if overall is not None:
        # A column that some completions have is null in the others once it has been a table.
        fixed = completion.get("fine-grained_score") is not None
        repaired = repair_overall_score(overall, list(ratings.values()), fixed)
        if repaired != overall:
            meant = "missing" if repaired is None else f"{repaired:g}"
            tally.notes[f"overall_score {HIGHEST_OVERALL} repaired to {meant}"] += 1
        if repaired is not None:
            attributes["ultrafeedback-overall_score"] = 10 * repaired - 5
    texts = {**completion, "instruction": cell(row, "instruction", place)}
    return _rated(place, texts, "instruction", "response", attributes)


def _aspect_ratings(annotations: Row, place: str) -> dict[str, float]:
    """Aspect -> rating 1..5, of the aspects that were rated."""
    ratings = {}
    for name in FORMAT_ATTRIBUTES["ultrafeedback"]:
        aspect = name.removeprefix("ultrafeedback-")
        if aspect != "overall_score":
            annotation = cell(annotations, aspect, place)
            rating = native_rating(cell(annotation, "Rating", f"{place}.{aspect}"), aspect, 1, 5)
            if rating is not None:
                ratings[aspect] = rating
    return ratings


def repair_overall_score(
    score: float, ratings: Sequence[float], repaired_upstream: bool
) -> float | None:
    """An overall_score of 1..10 as it was meant; None when that cannot be known.

    In the first release, 2,628 completions have overall_score 10 where many were given a 1: a
    script multiplied scores up to 1 by ten (https://github.com/OpenBMB/UltraFeedback/issues/8). The
    authors' fix, src/data_annotation/fix_overall_score_issue.py there, goes by the mean of the four
    ratings: up to 2 the score becomes 1; up to 4 GPT-4 was asked again; above 4 it stays. We do the
    same, but cannot ask: such scores are missing. A release that has the fix carries a
    `fine-grained_score` in each completion (`repaired_upstream`); its answers are trusted.
    """
    if score != HIGHEST_OVERALL:
        return score
    if not ratings:
        return score if repaired_upstream else None
    mean = sum(ratings) / len(ratings)
    if mean <= 2:
        return 1.0
    return score if mean > 4 or repaired_upstream else None


def native_rating(value: Any, column: str, low: float, high: float) -> float | None:
    """A rating of a public data set on its native scale; None if it was not given.

    Anything else drops the response: nobody can edit a public file, and a single bad cell must not
    stop a run; many of them do, through `max_dropped_fraction`.
    """
    if value is None or value == NOT_RATED:
        return None
    number = as_number(value)
    if number is None or not low <= number <= high:
        raise Dropped(f"malformed {column}")
    return number


# --- BeaverTails ---------------------------------------------------------------------------------


@dataclass
class Judged:
    """A response, how many judged it, and how many of them found it safe."""

    prompt: Conversation
    response: str
    judgements: int = 0
    safe: int = 0


def read_beavertails(rows: Iterable[PlacedRow], tally: Tally) -> Iterator[Rated]:
    """Rows of PKU-Alignment/BeaverTails: prompt, response, is_safe, one row per judgement.

    Rows of the same prompt and response become one response, in the order of their first rows, with
    100 times the share of safe judgements. Nothing says which annotator a row is from, and rows of
    a response need not be neighbours: the responses are in memory until the file ends. Rows read
    are judgements; all but one of a response's are counted as merged.
    """
    found: dict[tuple[str, str], Judged] = {}
    for place, row in rows:
        for prompt, response, attributes in _count(tally, place, _beavertails, row):
            identity = prompt_id(prompt), response
            judged = found.setdefault(identity, Judged(prompt, response))
            if judged.judgements:
                tally.losses.drop("merged with the response's other judgements", asked_for=True)
            judged.judgements += 1
            judged.safe += attributes["beavertails-is_safe"] == 1
    for judged in found.values():
        tally.notes[f"responses with {judged.judgements} judgements"] += 1
        tally.notes["responses whose judges disagree"] += 0 < judged.safe < judged.judgements
        share = 100 * judged.safe / judged.judgements
        yield Rated(judged.prompt, judged.response, {"beavertails-is_safe": share})


def _beavertails(place: str, row: Row) -> Rated:
    attributes = {}
    judgement = native_rating(cell(row, "is_safe", place), "is_safe", 0, 1)
    if judgement is not None:
        if judgement not in (0, 1):
            raise Dropped("malformed is_safe")
        attributes["beavertails-is_safe"] = judgement
    return _rated(place, row, "prompt", "response", attributes)


# --- Tables --------------------------------------------------------------------------------------


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


def table_scales(table: Table) -> dict[str, Scale]:
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
    values = {column: array("d") for column in ranked.values()}
    found: dict[str, None] = {}
    for place, row in read_placed_rows(table.train):
        found.update(dict.fromkeys(row))
        if _filtered_by(table, row) is None:
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
    rows: Iterable[PlacedRow], tally: Tally, table: Table, scales: Mapping[str, Scale]
) -> Iterator[Rated]:
    """Rows of a user's file by its column mapping.

    A cell that is null, NaN, blank or listed in `missing` leaves its attribute out. A JSONL row may
    lack a column, but some row must have it. Raises InputError naming file, row, column, value and
    remedy for a cell that is no number or is outside its scale.
    """
    found: dict[str, None] = {}
    place = ""
    for place, row in rows:
        found.update(dict.fromkeys(row))
        yield from _count(tally, place, _table, row, table, scales)
    file, _, _ = place.rpartition(":")
    _check_columns(table, file, found)


def _table(place: str, row: Row, table: Table, scales: Mapping[str, Scale]) -> Rated:
    if (column := _filtered_by(table, row)) is not None:
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
    return _rated(place, row, table.prompt, table.response, attributes)


def table_number(table: Table, row: Row, column: str, place: str) -> float | None:
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


def _filtered_by(table: Table, row: Row) -> str | None:
    """The first `keep` column whose value is not among the allowed ones; None keeps the row."""
    for column, allowed in table.keep.items():
        if not any(_same(row.get(column), value) for value in allowed):
            return column
    return None


def _check_columns(table: Table, path: str, found: Collection[str]) -> None:
    for column in (*table.keep, *(mapping.column for mapping in table.attributes.values())):
        if column not in found:
            raise missing_column(f"{path} (data.ratings: {table.name})", column, found)


# --- Cells ---------------------------------------------------------------------------------------


def as_number(value: Any) -> float | None:
    """A number in a cell: a number, a truth value, or their text (CSV has only text); else None."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("true", "false"):
            return float(text == "true")
        try:
            return float(text)
        except ValueError:
            return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


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
        number = as_number(text)
        return text if number is None or math.isnan(number) else number
    return value
