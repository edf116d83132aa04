"""Scores of the prompt data's original responses. No torch here."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dpa.artefacts.jsonl import ChunkedWriter, decode_lines
from dpa.artefacts.outputs import Fingerprint
from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.config.steering import ObjectiveConfig
from dpa.errors import InputError
from dpa.objectives import objective_rewards
from dpa.records import Annotation, Prompt, Rating
from dpa.reward.inputs import Group
from dpa.reward.score_samples import PROMPTS_PER_CHUNK
from dpa.reward.scorer import Scorer, named_scores
from dpa.runtime.log import Progress

#: A chunk: for each of its prompts the (line, rating) pairs of its original responses.
OriginalsChunk = list[list[tuple[int, Rating]]]


def original_responses(
    ratings: Path, prompts: Sequence[Path], dataset: str, shard: int, shards: int
) -> list[OriginalsChunk]:
    """A data set's original responses to a shard's prompts, in prompt order.

    Shard s of S gets a contiguous run of whole chunks of the prompts (of all files, in order), so
    the shards one after the other are the same for every S. Raises InputError when the shard has
    prompts, and none of them a response in the data set.
    """
    asked = (p for path in prompts for p in decode_lines(path, Prompt))
    # Unseen prompts (data.unseen_prompts) are those of which no rating is.
    ids = list(dict.fromkeys(p.prompt_id for p in asked if not p.unseen))
    chunks = [ids[i : i + PROMPTS_PER_CHUNK] for i in range(0, len(ids), PROMPTS_PER_CHUNK)]
    mine = chunks[shard * len(chunks) // shards : (shard + 1) * len(chunks) // shards]
    originals: dict[str, list[tuple[int, Rating]]] = {i: [] for chunk in mine for i in chunk}
    for line, rating in enumerate(decode_lines(ratings, Rating), 1):
        if rating.dataset == dataset and rating.prompt_id in originals:
            originals[rating.prompt_id].append((line, rating))
    if originals and not any(originals.values()):
        raise InputError(
            f"{ratings}: no original responses to the prompts of shard {shard} under --dataset "
            f"{dataset}; correct data.original_responses"
        )
    return [[originals[i] for i in chunk] for chunk in mine]


def annotate(
    model: Scorer,
    ratings: Path,
    chunks: Sequence[OriginalsChunk],
    objectives: Sequence[ObjectiveConfig],
    row_counts: RowCounts,
    output: Path,
    known: Fingerprint,
    sidecar: Callable[[], None],
) -> int:
    """Write annotations of the original responses, in order, and their `sidecar`; returns their
    number.

    Prompts without a response are counted in `row_counts`. `ratings` is where they are from.
    Resumes after the chunks that a killed job with the same fingerprint `known` has scored.
    """
    row_counts.read += sum(map(len, chunks))
    row_counts.dropped["no original responses"] += sum(not g for chunk in chunks for g in chunk)
    check_dropped(row_counts, str(output))
    plan = [found for chunk in chunks if (found := [group for group in chunk if group])]
    sizes = [sum(map(len, groups)) for groups in plan]
    writer = ChunkedWriter(output, Annotation, sizes, known)
    progress = Progress(sum(sizes), "responses", sum(sizes[: writer.done]))

    def groups_of_chunk(groups: OriginalsChunk) -> list[Group]:
        return list(groups_of_originals([groups]))

    for groups, scores in model.score_stream(plan[writer.done :], groups_of_chunk):
        writer.write(
            [
                _annotation(rating, named_scores(model.names, row, f"{ratings}:{line}"), objectives)
                for group, array in zip(groups, scores, strict=True)
                for (line, rating), row in zip(group, array, strict=True)
            ]
        )
        progress.advance(sum(map(len, groups)))
    writer.finish(sidecar)
    return sum(sizes)


def groups_of_originals(chunks: Sequence[OriginalsChunk]) -> Iterator[Group]:
    """Each prompt's text with its original responses; prompts without any left out."""
    for group in (group for chunk in chunks for group in chunk if group):
        yield group[0][1].prompt, [rating.response for _, rating in group]


def _annotation(
    rating: Rating, attributes: dict[str, float], objectives: Sequence[ObjectiveConfig]
) -> Annotation:
    return Annotation(
        prompt_id=rating.prompt_id,
        prompt=rating.prompt,
        response=rating.response,
        attributes=attributes,
        rewards=objective_rewards(attributes, objectives),
        split="validation" if rating.split == "validation" else "train",
    )
