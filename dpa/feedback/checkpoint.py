"""A reward model of others as an annotator.

A killed job resumes after the last chunk of samples that it has scored.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dpa.artefacts.jsonl import ChunkedWriter, read_jsonl
from dpa.artefacts.outputs import claimed
from dpa.artefacts.sidecars import fingerprint
from dpa.config.chat import ModelsConfig
from dpa.config.feedback import OutputConfig, RewardModelAnnotatorConfig
from dpa.data.rated import Tally
from dpa.data.user_table import Linear
from dpa.errors import InputError
from dpa.feedback.annotators import Annotator
from dpa.models import ModelRef, download, label_names, load_checkpoint_config
from dpa.records import ToRate
from dpa.runtime.gpus import take_gpu
from dpa.runtime.log import Progress
from dpa.runtime.watchdog import Watchdog

#: The key of the configuration that names the model.
ANNOTATOR_KEY = "feedback.annotator.model"

#: A scale that fewer outputs are on is another than the model's.
LEAST_INSIDE = 0.5
#: Samples that are scored together, and that a killed job scores again.
SAMPLES_PER_CHUNK = 256


class ScoredChunk(msgspec.Struct, forbid_unknown_fields=True):
    """The outputs of some samples, in their order."""

    outputs: list[list[float | None]]
    """None is no number, for which JSON has no word."""
    truncated: int
    """How many inputs lost their beginning."""


def checkpoint_annotator(
    config: RewardModelAnnotatorConfig, output: Path, models: ModelsConfig | None = None
) -> Annotator:
    """An annotator that reads conversations by the model's own template.

    Until `output` is whole, the model's outputs are in `<output>.partial`. Raises InputError when
    the model has not the outputs that `config` maps, or most of what it says is outside of the
    scale. A response with an output that is not a number has no rating.
    """
    ref = ModelRef(config.model.path, config.model.revision)
    names = label_names(load_checkpoint_config(ref), ref.path)
    places = {name: _place(name, o, names, ref) for name, o in config.outputs.items()}
    scales = {name: Linear(*output.scale_from) for name, output in config.outputs.items()}

    def rate(items: Sequence[ToRate], tally: Tally) -> list[dict[str, float]]:
        tally.row_counts.read += len(items)
        chunks = _scored(items, ref, models, output)
        tally.notes["truncated"] += sum(chunk.truncated for chunk in chunks)
        outputs = [row for chunk in chunks for row in chunk.outputs]
        rated: list[dict[str, float]] = [{} for _ in items]
        numbers = {i: row for i, row in enumerate(map(_numbers, outputs)) if row is not None}
        tally.row_counts.drop("an output that is not a number", rows=len(items) - len(numbers))
        for name, scale in scales.items():
            low, high = min(scale.low, scale.high), max(scale.low, scale.high)
            values = {i: row[places[name]] for i, row in numbers.items()}
            outside = sum(not low <= value <= high for value in values.values())
            if outside > (1 - LEAST_INSIDE) * len(values):
                ends = f"{min(values.values()):g} to {max(values.values()):g}"
                raise InputError(
                    f"feedback.annotator.outputs.{name}.from: [{low:g}, {high:g}], and the outputs "
                    f"of {ref.path} are {ends}, {outside} of {len(values)} outside; correct it"
                )
            tally.notes[f"outside the scale of {name}"] += outside
            for i, value in values.items():
                rated[i][name] = scale(min(max(value, low), high))
        return rated

    return rate


def _scored(
    items: Sequence[ToRate], ref: ModelRef, models: ModelsConfig | None, output: Path
) -> list[ScoredChunk]:
    """What the model says of the samples, chunk by chunk."""
    from dpa.reward.chat_scorer import ChatScorer

    size = SAMPLES_PER_CHUNK
    chunks = [items[i : i + size] for i in range(0, len(items), size)]
    known = fingerprint(
        [ref.path],
        model=str(ref),
        samples=[(item.prompt_id, item.response_hash) for item in items],
        date=models and str(models.chat_template_date),
    )
    download(ref)
    take_gpu()
    with claimed(output) as mine, Watchdog("rating samples") as watchdog:
        mine.resume(known)
        writer = ChunkedWriter(
            mine.folder() / "outputs.jsonl", ScoredChunk, [1] * len(chunks), known
        )
        try:
            progress = Progress(len(items), "samples", sum(map(len, chunks[: writer.done])))
            scorer: Any = ChatScorer.load(ref, models, ANNOTATOR_KEY)
            scorer.on_batch = watchdog.beat
            for chunk in chunks[writer.done :]:
                before = scorer.truncated
                outputs = scorer.outputs([(item.prompt, item.response) for item in chunk])
                writer.write([ScoredChunk(outputs, scorer.truncated - before)])
                progress.advance(len(chunk))
        finally:
            writer.close()  # not put in place: what is there can be resumed until `output` is whole
        return read_jsonl(writer.partial, ScoredChunk)


def _numbers(outputs: Sequence[float | None]) -> list[float] | None:
    """Finite outputs, or none where one is not."""
    found = [value for value in outputs if value is not None and math.isfinite(value)]
    return found if len(found) == len(outputs) else None


def _place(attribute: str, output: OutputConfig, names: list[str], ref: ModelRef) -> int:
    place = output.output
    if isinstance(place, str) and place in names:
        return names.index(place)
    if isinstance(place, int) and place < len(names):
        return place
    raise InputError(
        f"feedback.annotator.outputs.{attribute}: {ref.path} has no output {place!r}; it has "
        f"{len(names)}: {', '.join(names)}"
    )
