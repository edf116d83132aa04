"""Feedback between DPA's iterations: which samples are rated, and who rates them."""

from typing import Annotated, Literal

from pydantic import Field

from dpa.config.base import Positive, Section


class GoldAnnotatorConfig(Section):
    """The quickstart's noisy annotators."""

    kind: Literal["gold"]
    """Who rates: `gold`."""


#: Who rates.
AnnotatorConfig = GoldAnnotatorConfig


class FeedbackConfig(Section):
    annotator: AnnotatorConfig | None
    best_per_prompt: Annotated[int, Field(ge=0)]
    random_per_prompt: Annotated[int, Field(ge=0)]
    prompts_per_iteration: Positive | None
    minimum: Annotated[float, Field(gt=0, le=1)]
