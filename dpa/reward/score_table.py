"""Scores of a user's own table of prompts and responses. No torch here."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from dpa.artefacts.jsonl import ChunkedWriter, decode_lines
from dpa.artefacts.outputs import claimed
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import fingerprint, write_sidecar
from dpa.config.data import SourceConfig
from dpa.data.hub import PlacedRow, Row
from dpa.data.sources import as_prompt, cell, read_placed_rows
from dpa.data.table_files import TableFile, table_file
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef
from dpa.reward.inputs import Group
from dpa.reward.load import open_scorer, read_reward_model
from dpa.reward.scorer import Scorer, named_scores
from dpa.runtime.log import Progress, log
from dpa.text.prompts import Conversation

#: Rows of a table that are scored together, and that a killed job scores again.
ROWS_PER_CHUNK = 512

#: So many rows, and their groups with the rows' numbers.
TableChunk = tuple[list[PlacedRow], list[tuple[Group, list[int]]]]


class RowScores(msgspec.Struct):
    """A row's scores on their way into the table."""

    scores: list[float]


class Pairs:
    """The rows of a table, and which of their columns are prompt and response."""

    def __init__(self, source: Path, prompt: str, response: str, names: Sequence[str]) -> None:
        self.source = SourceConfig(path=str(source))
        self.prompt, self.response, self.names = prompt, response, names
        self.rows = 0

    def read(self) -> Iterator[list[PlacedRow]]:
        """The rows, chunk by chunk."""
        rows = read_placed_rows(self.source)
        while chunk := list(islice(rows, ROWS_PER_CHUNK)):
            yield chunk

    def chunks(self, start: int = 0) -> Iterator[TableChunk]:
        """The chunks from one on, with their groups."""
        for chunk in islice(self.read(), start, None):
            pairs = [_pair(placed, self.prompt, self.response, self.names) for placed in chunk]
            yield chunk, by_prompt(pairs)

    def check(self, table: TableFile) -> None:
        """Look at all rows, and at what the table they go into can hold: a bad one at the end
        should not cost the work before it."""
        for chunk, _ in self.chunks():
            table.look_at(chunk)
            self.rows += len(chunk)
        for chunk in self.read() if table.unsure else ():
            table.look_again_at(chunk)


def score_table(
    reward_model: AnyModel,
    source: Path,
    output: Path,
    *,
    prompt_column: str,
    response_column: str,
    tokens_per_batch: int,
    attributes: Sequence[str] | None = None,
    engine: str = "transformers",
) -> None:
    """Write a table's rows, in file order, with one column more per output, and the sidecar.

    Formats follow from the suffixes. A killed run resumes. Raises InputError naming the place of a
    row without prompt or response, whose columns include an output's name already, or that the
    output's format cannot hold: before the weights are loaded.
    """
    ref = ModelRef.of(reward_model)
    table = table_file(output, source)
    read = read_reward_model(ref, attributes=attributes)
    pairs = Pairs(source, prompt_column, response_column, read.names)
    pairs.check(table)
    if lost := table.losses():
        log.warning("%s: %s", output, lost)
    groups = (group for _, numbered in pairs.chunks() for group, _ in numbered)
    survey = read.inputs.survey(groups, pairs.rows)
    survey.check(output)
    inputs: list[Path | str] = [ref.path, source]
    known = fingerprint(
        inputs,
        reward_model=str(ref),
        names=read.names,
        columns=[prompt_column, response_column],
        tokens_per_batch=tokens_per_batch,
        engine=engine,
        suffix=output.suffix,
    )
    with claimed(output) as mine:
        mine.resume(known)
        work = mine.folder()
        scores = work / "scores.jsonl"
        if not scores.exists():
            sizes = [ROWS_PER_CHUNK] * (pairs.rows // ROWS_PER_CHUNK)
            sizes += [rest] if (rest := pairs.rows % ROWS_PER_CHUNK) else []
            writer = ChunkedWriter(scores, RowScores, sizes, known)
            if writer.done < len(sizes):
                with open_scorer(read, engine, output, tokens_per_batch=tokens_per_batch) as model:
                    _score(model, pairs, writer)
            writer.finish()
        made = work / f"table{output.suffix}"
        table.write(made, _joined(pairs, scores), read.names)
        mine.put_in_place(made)
        write_sidecar(
            output,
            inputs,
            RowCounts.all_kept(pairs.rows),
            scored=survey.inputs,
            cut=survey.truncated,
            neutralised=read.inputs.controls.log_escaped(),
        )
    log.info(
        "scored %d responses (%d inputs truncated to %d tokens)",
        pairs.rows, survey.truncated, read.inputs.max_length,
    )  # fmt: skip


def _score(model: Scorer, pairs: Pairs, writer: ChunkedWriter) -> None:
    """Write the scores of the chunks that are still to be scored."""
    progress = Progress(pairs.rows, "rows", sum(writer.chunk_sizes[: writer.done]))
    stream = model.score_stream(
        pairs.chunks(writer.done), lambda chunk: [group for group, _ in chunk[1]]
    )
    for (rows, groups), arrays in stream:
        scores = {
            number: outputs
            for (_, numbers), array in zip(groups, arrays, strict=True)
            for number, outputs in zip(numbers, array, strict=True)
        }
        named = [named_scores(model.names, scores[i], place) for i, (place, _) in enumerate(rows)]
        writer.write([RowScores(list(found.values())) for found in named])
        progress.advance(len(rows))


def _joined(pairs: Pairs, scores: Path) -> Iterator[Row]:
    """The rows with their scores."""
    rows = (row for chunk in pairs.read() for _, row in chunk)
    for row, found in zip(rows, decode_lines(scores, RowScores), strict=True):
        yield row | dict(zip(pairs.names, found.scores, strict=True))


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
