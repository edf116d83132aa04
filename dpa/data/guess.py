"""What a file of ratings or comparisons holds: columns and scales, guessed from names and values.

A row is one rated response; or a comparison, with columns `chosen` and `rejected`; or a prompt with
a list of responses, and lists of ratings or ranks beside it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dpa.data.hub import PlacedRow, Row
from dpa.data.rated import as_number
from dpa.data.sources import as_prompt, as_response
from dpa.errors import InputError
from dpa.text.prompts import Conversation

#: Names of columns, the likeliest first.
PROMPTS = ("prompt", "instruction", "question", "query", "input", "context", "messages")
RESPONSES = ("response", "output", "answer", "completion", "reply", "generation", "responses",
             "answers", "completions", "text")  # fmt: skip
CHOSEN = ("chosen", "preferred", "winner", "response_chosen", "chosen_response")
REJECTED = ("rejected", "dispreferred", "loser", "response_rejected", "rejected_response")
#: Numbers that are no ratings, and low numbers that are good.
NOT_RATINGS = re.compile(
    r"(^|_|\b)(ids?|idx|index|uuid|seed|turns?|time|timestamp|date|rater|annotator|worker|user|fold|"
    r"tokens?|length|chars|characters|words|version)$"
)
RANKS = re.compile(r"(^|_)(rank|ranks|ranking|place)$")
#: The first that holds all values is a column's scale; more values than steps of these are ranked.
SCALES = ((0, 1), (1, 5), (0, 4), (1, 7), (1, 10), (0, 10), (0, 100))
#: Of a column's cells, how many may hold other marks for "not rated".
MARKS, MARKED_SHARE = 5, 0.1

#: The attribute that a comparison gives: 1 for the chosen response, 0 for the other.
PREFERENCE = "preference"


class Column(NamedTuple):
    """A column of numbers, its scale, and the texts in it that mean "not rated"."""

    name: str
    scale: tuple[float, float] | str
    missing: tuple[str, ...] = ()


class Columns(NamedTuple):
    """What a file's columns are; `chosen` and `rejected` in place of a response for comparisons."""

    prompt: str | None
    response: str | None
    chosen: str | None
    rejected: str | None
    ratings: tuple[Column, ...]
    others: tuple[str, ...]


class Answer(NamedTuple):
    """A response with what its columns of ratings say."""

    prompt: Conversation
    response: str
    ratings: dict[str, float]


def guess_columns(
    rows: Sequence[PlacedRow], path: str, given: Mapping[str, str | None], ratings: Sequence[str]
) -> Columns:
    """The columns of a file, from its first rows.

    `given` are the prompt's and response's columns where the user names them, `ratings` the columns
    to take as ratings (all that look like it, where empty). Raises InputError naming what is
    missing and the columns found.
    """
    found = list(dict.fromkeys(column for _, row in rows for column in row))
    named = {name.lower(): name for name in found}

    def first(candidates: Iterable[str]) -> str | None:
        return next((named[name] for name in candidates if name in named), None)

    for flag, column in [*given.items(), *(("--rating", name) for name in ratings)]:
        if column is not None and column not in found:
            raise InputError(f"{path}: no column {column!r} ({flag}); columns: {', '.join(found)}")
    chosen, rejected = first(CHOSEN), first(REJECTED)
    prompt = given.get("--prompt-column") or first(PROMPTS)
    response = given.get("--response-column")
    if response is None and not (chosen and rejected):
        response = first(name for name in RESPONSES if named.get(name) != prompt)
    if response is not None:
        chosen = rejected = None
    if response is None and not chosen:
        raise InputError(
            f"{path}: no column of responses; columns: {', '.join(found)}; name it by "
            "--response-column, or call those of comparisons `chosen` and `rejected`"
        )
    if prompt is None and not (chosen and _is_conversation(rows, chosen)):
        raise InputError(
            f"{path}: no column of prompts; columns: {', '.join(found)}; name it by --prompt-column"
        )
    taken = {prompt, response, chosen, rejected}
    numbers = [
        number
        for name in (ratings or [n for n in found if not NOT_RATINGS.search(n.lower())])
        if name not in taken and (number := _rating(name, rows, bool(ratings), path))
    ]
    if not numbers and not chosen:
        raise InputError(
            f"{path}: no column of numbers that could be ratings; columns: {', '.join(found)}; "
            "name them by --rating"
        )
    used = {*taken, *(column.name for column in numbers)}
    others = tuple(name for name in found if name not in used)
    # A comparison's other numbers belong to the pair, not to one of its responses.
    return Columns(prompt, response, chosen, rejected, () if chosen else tuple(numbers), others)


def _is_conversation(rows: Sequence[PlacedRow], column: str) -> bool:
    return all(isinstance(row.get(column), list) for _, row in rows)


def _rating(name: str, rows: Sequence[PlacedRow], asked_for: bool, path: str) -> Column | None:
    """A column as one of ratings; None where it is not, unless it was asked for."""
    cells = [
        cell
        for _, row in rows
        for cell in (row[name] if isinstance(row.get(name), list) else [row.get(name)])
    ]
    given = [c for c in cells if c is not None and not (isinstance(c, str) and not c.strip())]
    values = [number for c in given if (number := as_number(c)) is not None and number == number]
    marks = {str(c) for c in given if as_number(c) is None}
    numeric = values and len(values) >= (1 - MARKED_SHARE) * len(given) and len(marks) <= MARKS
    if not numeric or min(values) == max(values):
        if asked_for:
            why = "has one value only" if numeric else f"holds {sorted(marks)[:3]}, no numbers"
            raise InputError(f"{path}: column {name!r} {why}; name another by --rating")
        return None
    return Column(name, scale_of(name, values), tuple(sorted(marks)))


def scale_of(name: str, values: Sequence[float]) -> tuple[float, float] | str:
    """The smallest usual scale that holds whole numbers, or `rank`; ranks count from the best."""
    low, high = min(values), max(values)
    if RANKS.search(name.lower()):
        return (high, min(1.0, low))
    whole = all(value == int(value) for value in values)
    for bottom, top in SCALES:
        if bottom <= low and high <= top and (whole or top == 1):
            return (bottom, top)
    return "rank"


# --- Rows to answers --------------------------------------------------------------------------


def read_answers(row: Row, columns: Columns, place: str) -> Iterator[Answer | str]:
    """A row's responses with their ratings; in place of one that cannot be used, why."""
    if columns.chosen and columns.rejected:
        for column, value in ((columns.chosen, 1.0), (columns.rejected, 0.0)):
            cell = row.get(column)
            prompt = row.get(columns.prompt) if columns.prompt else None
            if isinstance(cell, list):  # a conversation that the response ends
                turns, answer = cell[:-1], cell[-1] if cell else {}
                prompt = prompt if columns.prompt else turns
                cell = answer.get("content") if isinstance(answer, dict) else None
            yield _answer(
                prompt, cell, {PREFERENCE: value}, columns.prompt or column, column, place
            )
        return
    assert columns.prompt
    assert columns.response
    cell = row.get(columns.response)
    responses = cell if isinstance(cell, list) else [cell]
    for i, response in enumerate(responses):
        ratings: dict[str, float] = {}
        for rating in columns.ratings:
            given = row.get(rating.name)
            if isinstance(cell, list):
                if not isinstance(given, list) or len(given) != len(responses):
                    yield f"{rating.name} is not a list as long as {columns.response}"
                    return
                given = given[i]
            rated = as_number(given) if str(given) not in rating.missing else None
            if rated is not None and rated == rated:
                ratings[rating.name] = rated
        yield _answer(
            row.get(columns.prompt), response, ratings, columns.prompt, columns.response, place
        )


def _answer(
    prompt: Any, response: Any, ratings: dict[str, float], prompts: str, responses: str, place: str
) -> Answer | str:
    asked, answered = as_prompt(prompt, prompts, place), as_response(response, responses, place)
    if asked is None or answered is None:
        return "empty prompt" if asked is None else "empty response"
    return Answer(asked, answered, ratings) if ratings else "no rating"
