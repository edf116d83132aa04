"""A rated response on its way from a raw row to a record, and what became of the others."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dpa.artefacts.row_counts import RowCounts
from dpa.data.hub import Row
from dpa.data.sources import as_prompt, as_response, cell
from dpa.runtime.log import log
from dpa.text.prompts import Conversation, normalise

#: UltraFeedback's mark for a rating that was not given.
NOT_RATED = "N/A"


class Rated(NamedTuple):
    """A response with its ratings on 0-100; attributes that were not rated are absent."""

    prompt: Conversation
    response: str
    attributes: dict[str, float]


@dataclass
class Tally:
    """What happened to a data set: rows dropped (`row_counts`), rows kept but changed (`notes`)."""

    row_counts: RowCounts = field(default_factory=RowCounts)
    notes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        notes = "".join(f"; {count} {note}" for note, count in sorted(self.notes.items()))
        return f"{self.row_counts}{notes}"

    def as_dict(self) -> dict:
        """Counts for the sidecar."""
        return {**self.row_counts.as_dict(), "notes": dict(sorted(self.notes.items()))}


class Dropped(Exception):
    """A response is left out, for the reason given; `asked_for` if the configuration says so."""

    def __init__(self, reason: str, asked_for: bool = False):
        super().__init__(reason)
        self.reason, self.asked_for = reason, asked_for


def count_row(
    tally: Tally, place: str, rate: Callable[..., Rated], *arguments: Any
) -> Iterator[Rated]:
    """The response that `rate` makes, or none, counted by the reason for dropping it."""
    tally.row_counts.read += 1
    try:
        rated = rate(place, *arguments)
    except Dropped as dropped:
        if dropped.reason not in tally.row_counts.dropped and not dropped.asked_for:
            log.info("%s: dropped (%s); others are only counted", place, dropped.reason)
        tally.row_counts.drop(dropped.reason, dropped.asked_for)
    else:
        yield rated


def rated_row(
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


def native_rating(value: Any, column: str, low: float, high: float) -> float | None:
    """A rating of a public data set on its native scale; None if it was not given.

    Anything else drops the response: a public file cannot be edited, and a single bad cell must not
    stop a run; many of them do, through `max_dropped_fraction`.
    """
    if value is None or value == NOT_RATED:
        return None
    number = as_number(value)
    if number is None or not low <= number <= high:
        raise Dropped(f"malformed {column}")
    return number


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
    except (TypeError, ValueError, OverflowError):
        return None
