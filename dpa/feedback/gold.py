"""The quickstart's noisy annotators, as annotators of samples."""

from collections.abc import Sequence

import numpy as np

from dpa.data.rated import Tally
from dpa.data.scales import NATIVE_SCALES
from dpa.feedback.annotators import Annotator
from dpa.quickstart.world import ANNOTATION_NOISE, SCORES, latent_scores, to_native
from dpa.records import ToRate
from dpa.seeds import derive_seed
from dpa.text.prompts import normalise


def gold_annotator(attributes: Sequence[str], seed: int) -> Annotator:
    """An annotator who sees the truth through noise and rounding, as those of the raw files do.

    A label is a whole HelpSteer row and a whole UltraFeedback row of one response. Its noise
    derives from the prompt and the response: who is asked again says the same.
    """
    known = [name for name in SCORES if name in attributes]

    def rate(items: Sequence[ToRate], tally: Tally) -> list[dict[str, float]]:
        tally.row_counts.read += len(items)
        return [_rate(item, known, seed) for item in items]

    return rate


def _rate(item: ToRate, names: Sequence[str], seed: int) -> dict[str, float]:
    parts = (seed, "feedback-gold", item.prompt_id, item.response_hash)
    errors = np.random.default_rng(derive_seed(*parts)).normal(0, ANNOTATION_NOISE, len(SCORES))
    noise = dict(zip(SCORES, errors, strict=True))
    latent = latent_scores(normalise(item.prompt), item.response)
    ratings = {}
    for name in names:
        scale = NATIVE_SCALES[name]
        rating = to_native(latent[name] + noise[name], scale.levels, scale.lowest)
        ratings[name] = scale.points(rating)
    return ratings
