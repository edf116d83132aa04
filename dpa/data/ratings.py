"""Labelled responses: from the raw formats to `records.Rating`, every attribute on 0-100.

One reader per format: HelpSteer, UltraFeedback, BeaverTails, and `table`, a user's own file with a
column mapping. A violation of the format (a missing column, a value outside a declared scale)
raises InputError with its place; a single bad row (an empty response, no rating) is dropped and
counted.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal

from dpa.config.data import DataConfig, RatingsConfig, SourceConfig, TableConfig
from dpa.data.formats import read_beavertails, read_helpsteer, read_ultrafeedback
from dpa.data.hub import PlacedRow
from dpa.data.rated import Rated, Tally
from dpa.data.sources import as_prompt, cell, read_placed_rows
from dpa.data.user_table import read_table, table_scales
from dpa.errors import InputError
from dpa.records import Rating
from dpa.text.prompts import prompt_id


def read_ratings(
    data: DataConfig,
    held_out: Collection[str],
    tallies: dict[str, Tally],
    is_judges: Callable[[str], bool] = lambda prompt_id: False,
) -> Iterator[Rating]:
    """All ratings of the configuration, data set by data set in the order of their files.

    A rating is for validation if it is from a `validation` file or its prompt_id is in `held_out`,
    so no prompt is in both splits if `held_out` has the prompts of all validation files. Of the
    others those are the judge's whose prompt_id `is_judges`, in all data sets alike. `tallies` is
    filled while reading: data set -> counts. Raises InputError for rows that violate their
    format, when a data set loses more than `data.max_dropped_fraction` or more than half of its
    training responses to `held_out`, and when nothing is left to train on.
    """
    training = 0
    for section in data.ratings:
        tally = tallies.setdefault(section.name, Tally())
        for rating in _read_section(section, data.drop_sources, held_out, tally, is_judges):
            training += rating.split == "train"
            yield rating
        tally.row_counts.check(data.max_dropped_fraction, f"data.ratings: {section.name}")
    if data.ratings and not training:
        counts = "; ".join(f"{name}: {tally}" for name, tally in tallies.items())
        raise InputError(f"data.ratings: no ratings left to train on ({counts})")


def validation_prompt_ids(data: DataConfig) -> set[str]:
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
    section: RatingsConfig | TableConfig,
    drop_sources: Collection[str],
    held_out: Collection[str],
    tally: Tally,
    is_judges: Callable[[str], bool],
) -> Iterator[Rating]:
    read = _reader(section, drop_sources)
    split: Literal["train", "judge", "validation"]
    sources: list[tuple[Literal["train", "validation"], SourceConfig | None]] = [
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
            if split == "train" and is_judges(identity):
                split = "judge"
                tally.notes["the judge's"] += 1
            count += 1
            if split == "validation" != file_split:
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


def _prompt_column(section: RatingsConfig | TableConfig) -> str:
    if isinstance(section, TableConfig):
        return section.prompt
    return "instruction" if section.format == "ultrafeedback" else "prompt"


Reader = Callable[[Iterable[PlacedRow], Tally], Iterator[Rated]]


def _reader(section: RatingsConfig | TableConfig, drop_sources: Collection[str]) -> Reader:
    if isinstance(section, TableConfig):
        scales = table_scales(section)
        return lambda rows, tally: read_table(rows, tally, section, scales)
    if section.format == "ultrafeedback":
        return lambda rows, tally: read_ultrafeedback(rows, tally, drop_sources)
    return {"helpsteer": read_helpsteer, "beavertails": read_beavertails}[section.format]
