"""Feedback between DPA's iterations: which samples are rated, and who rates them."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from dpa.config.base import ModelConfig, Positive, Section

#: Attribute -> its lowest and highest rating, for those that no public data set has.
Scales = dict[str, tuple[float, float]]


class GoldAnnotatorConfig(Section):
    """The quickstart's noisy annotators."""

    kind: Literal["gold"]
    """Who rates: `gold`."""


class OutputConfig(Section):
    """How an output of a model becomes an attribute on 0-100."""

    output: str | Annotated[int, Field(ge=0)]
    """Its name, or its place from 0."""
    scale_from: Annotated[tuple[float, float], Field(alias="from")]
    """`[low, high]`, mapped to 0-100 (high < low reverses it); values outside become the ends."""

    @model_validator(mode="after")
    def _range(self) -> "OutputConfig":
        if self.scale_from[0] == self.scale_from[1]:
            raise ValueError("from: low and high must differ (high < low reverses the scale)")
        return self


class AnnotatorModelConfig(ModelConfig):
    """A sequence-classification model."""

    path: str
    """Folder or hub id."""
    revision: str | None = None
    """Commit of the hub repository; `locked` is the one in revisions.lock.yaml."""


class RewardModelAnnotatorConfig(Section):
    """A reward model of others, by its own chat template."""

    kind: Literal["reward_model"]
    """Who rates: `reward_model`."""
    model: AnnotatorModelConfig
    """The model."""
    outputs: Annotated[dict[str, OutputConfig], Field(min_length=1)]
    """Attribute (one of `reward_model.attributes`) -> the output that rates it."""


class FileAnnotatorConfig(Section):
    """People, whose ratings lie in files."""

    kind: Literal["file"]
    """Who rates: `file`."""
    path: str
    """Folder of your own: ratings of iteration t's samples lie in its folder `iter{t}`."""
    scales: Scales = Field(default_factory=dict)
    """Attribute -> [low, high], for attributes that neither HelpSteer nor UltraFeedback has."""


#: Who rates.
AnnotatorConfig = Annotated[
    GoldAnnotatorConfig | RewardModelAnnotatorConfig | FileAnnotatorConfig,
    Field(discriminator="kind"),
]
AnnotatorSectionConfig: TypeAdapter = TypeAdapter(AnnotatorConfig)


class FeedbackConfig(Section):
    annotator: AnnotatorConfig | None
    best_per_prompt: Annotated[int, Field(ge=0)]
    random_per_prompt: Annotated[int, Field(ge=0)]
    prompts_per_iteration: Positive | None
    minimum: Annotated[float, Field(gt=0, le=1)]
    start: Literal["base", "previous"]
