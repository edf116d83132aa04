"""Readers of the public data sets: HelpSteer, UltraFeedback, BeaverTails."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from dpa.config.data import FORMAT_ATTRIBUTES
from dpa.data.hub import PlacedRow, Row
from dpa.data.rated import Dropped, Rated, Tally, count_row, native_rating, rated_row
from dpa.data.scales import ASPECT_SCALE, HELPSTEER_SCALE, OVERALL_SCALE
from dpa.data.sources import cell
from dpa.errors import InputError
from dpa.text.prompts import Conversation, prompt_id

#: The highest overall_score: also what a bug upstream made of the lowest.
HIGHEST_OVERALL = OVERALL_SCALE.highest


def read_helpsteer(rows: Iterable[PlacedRow], tally: Tally) -> Iterator[Rated]:
    """Rows of nvidia/HelpSteer: prompt, response and five integers 0..4, mapped to 20s + 10."""
    for place, row in rows:
        yield from count_row(tally, place, _helpsteer, row)


def _helpsteer(place: str, row: Row) -> Rated:
    attributes = {}
    for name in FORMAT_ATTRIBUTES["helpsteer"]:
        column = name.removeprefix("helpsteer-")
        rating = native_rating(cell(row, column, place), column, *HELPSTEER_SCALE[:2])
        if rating is not None:
            attributes[name] = HELPSTEER_SCALE.points(rating)
    return rated_row(place, row, "prompt", "response", attributes)


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
            yield from count_row(tally, where, _ultrafeedback, row, completion, asked_for, tally)


def _ultrafeedback(
    place: str, row: Row, completion: Row | None, asked_for: bool, tally: Tally
) -> Rated:
    if asked_for:
        raise Dropped(f"source {row['source']}", asked_for=True)
    if completion is None:
        raise Dropped("prompt without completions")
    ratings = _aspect_ratings(cell(completion, "annotations", place), f"{place}, annotations")
    attributes = {f"ultrafeedback-{name}": ASPECT_SCALE.points(s) for name, s in ratings.items()}
    overall = native_rating(
        cell(completion, "overall_score", place), "overall_score", *OVERALL_SCALE[:2]
    )
    if overall is not None:
        # A column that some completions have is null in the others once it has been a table.
        fixed = completion.get("fine-grained_score") is not None
        repaired = repair_overall_score(overall, list(ratings.values()), fixed)
        if repaired != overall:
            meant = "missing" if repaired is None else f"{repaired:g}"
            tally.notes[f"overall_score {HIGHEST_OVERALL} repaired to {meant}"] += 1
        if repaired is not None:
            attributes["ultrafeedback-overall_score"] = OVERALL_SCALE.points(repaired)
    texts = {**completion, "instruction": cell(row, "instruction", place)}
    return rated_row(place, texts, "instruction", "response", attributes)


def _aspect_ratings(annotations: Row, place: str) -> dict[str, float]:
    """Aspect -> rating 1..5, of the aspects that were rated."""
    ratings = {}
    for name in FORMAT_ATTRIBUTES["ultrafeedback"]:
        aspect = name.removeprefix("ultrafeedback-")
        if aspect != "overall_score":
            annotation = cell(annotations, aspect, place)
            given = cell(annotation, "Rating", f"{place}.{aspect}")
            rating = native_rating(given, aspect, *ASPECT_SCALE[:2])
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


@dataclass
class JudgedResponse:
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
    found: dict[tuple[str, str], JudgedResponse] = {}
    for place, row in rows:
        for prompt, response, attributes in count_row(tally, place, _beavertails, row):
            identity = prompt_id(prompt), response
            judged = found.setdefault(identity, JudgedResponse(prompt, response))
            if judged.judgements:
                tally.row_counts.drop("merged with the response's other judgements", asked_for=True)
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
    return rated_row(place, row, "prompt", "response", attributes)
