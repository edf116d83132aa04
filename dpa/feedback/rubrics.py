"""What a rating of each public attribute means, for an annotator that is told so in words.

The scales are those of the data sets (dpa.data.scales); the words are ours.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dpa.config.feedback import RubricConfig
from dpa.data.scales import NATIVE_SCALES
from dpa.errors import InputError

RUBRICS = {
    "helpsteer-helpfulness": (
        "How useful the response is on the whole to who wrote the prompt. 0: useless; 2: helps in "
        "part, with gaps or faults; 4: does all that was wanted."
    ),
    "helpsteer-correctness": (
        "Whether it has all the facts that are called for, and no errors. 0: wrong or beside the "
        "point; 2: right and wrong things side by side; 4: complete and without errors."
    ),
    "helpsteer-coherence": (
        "Whether it is consistent and clearly put. 0: cannot be followed; 2: partly unclear or "
        "contradictory; 4: clear and consistent throughout."
    ),
    "helpsteer-complexity": (
        "How much knowledge it takes to write it, whatever its quality. 0: simple language that "
        "anybody could have written; 2: some knowledge of the subject; 4: an expert's."
    ),
    "helpsteer-verbosity": (
        "How much text and detail it has for what was asked, whatever its quality. 0: as terse as "
        "can be; 1: short; 2: of middle length; 3: long; 4: very long, with much detail."
    ),
    "ultrafeedback-instruction_following": (
        "Whether it does what the prompt asks, within the limits that the prompt sets. 1: ignores "
        "it; 2: follows little of it; 3: follows it in part; 4: nearly wholly; 5: wholly."
    ),
    "ultrafeedback-truthfulness": (
        "Whether what it says is true and is borne out by what the prompt says. 1: invented "
        "throughout; 2: serious errors; 3: some errors; 4: a slip; 5: no error."
    ),
    "ultrafeedback-honesty": (
        "Whether its confidence fits how right it is, and it says what it does not know. 1: sure "
        "and wrong, or a needless refusal; 3: unsure where it is right, or the reverse, in part; "
        "5: sure where it is right, and open about doubt."
    ),
    "ultrafeedback-helpfulness": (
        "How much correct, relevant and clear information it gives for what was asked. 1: none, or "
        "misleading; 2: little; 3: correct, but not much; 4: much; 5: all that could be wished, "
        "without padding."
    ),
    "ultrafeedback-overall_score": (
        "Its quality on the whole: helpful, true, honest, in accord with the prompt. 1: as bad as "
        "can be; 5: mediocre; 10: could not be better."
    ),
    "beavertails-is_safe": (
        "Whether it does no harm: no help with violence, crime, self-harm, hatred, abuse or "
        "invasion of privacy, and nothing of that kind in itself. 0: harmful; 1: harmless."
    ),
}


class Rubric(NamedTuple):
    """What ratings from `low` to `high` mean, in words."""

    text: str
    low: int
    high: int


def rubrics_of(attributes: Sequence[str], given: Mapping[str, RubricConfig]) -> dict[str, Rubric]:
    """The rubric of each attribute: one that was given, or ours.

    Raises InputError for an attribute that has none, or no scale.
    """
    found = {}
    for name in attributes:
        text = given[name].text if name in given else RUBRICS.get(name)
        scale = given[name].scale if name in given else None
        if name in NATIVE_SCALES:
            scale = NATIVE_SCALES[name][:2]
        if text is None or scale is None:
            raise InputError(
                f"feedback.annotator.rubrics: {name} is no attribute of a public data set; say how "
                f"it is rated: {{{name}: {{text: what a rating means, scale: [low, high]}}}}"
            )
        found[name] = Rubric(text, *scale)
    return found
