"""A reward model of others as an annotator."""

import math
from collections.abc import Sequence

from dpa.config.chat import ModelsConfig
from dpa.config.feedback import OutputConfig, RewardModelAnnotatorConfig
from dpa.data.rated import Tally
from dpa.data.user_table import Linear
from dpa.errors import InputError
from dpa.feedback.annotators import Annotator
from dpa.models import ModelRef, download, label_names, load_checkpoint_config
from dpa.records import ToRate
from dpa.runtime.gpus import take_gpu
from dpa.runtime.watchdog import Watchdog

#: The key of the configuration that names the model.
ANNOTATOR_KEY = "feedback.annotator.model"

#: A scale that fewer outputs are on is another than the model's.
LEAST_INSIDE = 0.5


def checkpoint_annotator(
    config: RewardModelAnnotatorConfig, models: ModelsConfig | None = None
) -> Annotator:
    """An annotator that reads conversations by the model's own template.

    Raises InputError when the model has not the outputs that `config` maps, or most of what it says
    is outside of the scale. A response with an output that is not a number has no rating.
    """
    ref = ModelRef(config.model.path, config.model.revision)
    names = label_names(load_checkpoint_config(ref), ref.path)
    places = {name: _place(name, o, names, ref) for name, o in config.outputs.items()}
    scales = {name: Linear(*output.scale_from) for name, output in config.outputs.items()}

    def rate(items: Sequence[ToRate], tally: Tally) -> list[dict[str, float]]:
        from dpa.reward.chat_scorer import ChatScorer

        download(ref)
        take_gpu()
        tally.row_counts.read += len(items)
        with Watchdog("rating samples") as watchdog:
            scorer = ChatScorer.load(ref, models, ANNOTATOR_KEY)
            scorer.on_batch = watchdog.beat
            outputs = scorer.outputs([(item.prompt, item.response) for item in items])
        tally.notes["truncated"] += scorer.truncated
        rated: list[dict[str, float]] = [{} for _ in items]
        finite = [i for i, row in enumerate(outputs) if all(map(math.isfinite, row))]
        tally.row_counts.drop("an output that is not a number", rows=len(items) - len(finite))
        for name, scale in scales.items():
            low, high = min(scale.low, scale.high), max(scale.low, scale.high)
            values = {i: outputs[i][places[name]] for i in finite}
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
