"""Feedback between DPA's iterations: which samples are rated, and who rates them."""

from typing import Annotated, Any, Literal, get_args

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


class RubricConfig(Section):
    """How an attribute is rated, in words."""

    text: Annotated[str, Field(min_length=1)]
    """What its ratings mean, as the model is told."""
    scale: tuple[int, int] | None = None
    """`[low, high]`; null for a public data set's attribute, whose scale it is."""

    @model_validator(mode="after")
    def _rises(self) -> "RubricConfig":
        if self.scale is not None and self.scale[0] >= self.scale[1]:
            raise ValueError("scale: give the lowest rating and then the highest")
        return self


class PriceConfig(Section):
    """US dollars for a million tokens."""

    input: Annotated[float, Field(ge=0)]
    """Of what is asked."""
    output: Annotated[float, Field(ge=0)]
    """Of what is answered, thoughts included."""


#: Fields of a request that are the annotator's own.
OWN_FIELDS = ("model", "messages", "stream", "n")


class EndpointAnnotatorConfig(Section):
    """A language model, asked over HTTP."""

    kind: Literal["endpoint"]
    """Who rates: `endpoint`."""
    model: Annotated[str, Field(min_length=1)]
    """The name by which the server knows the model."""
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    """Any server with OpenAI's chat completions, for example http://localhost:8000/v1."""
    key_variable: str | None = None
    """The environment variable that holds the server's key, if it needs one."""
    price: PriceConfig | None = None
    """What tokens cost; null: nothing, which a server with a key must say by zeros."""
    max_cost: Annotated[float, Field(ge=0)] = 0.0
    """Most US dollars that the ratings of one iteration (of each seed) may cost."""
    responses_per_call: Positive = 4
    """Responses to a prompt that are rated at a time."""
    concurrency: Positive = 5
    """Calls at a time."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Fields of the request in addition to ours, or in their place; null leaves one out."""
    rubrics: dict[str, RubricConfig] = Field(default_factory=dict)
    """Attribute -> how it is rated, for those that no public data set has, or in place of ours."""

    @model_validator(mode="after")
    def _consistent(self) -> "EndpointAnnotatorConfig":
        if own := sorted(set(OWN_FIELDS) & set(self.request)):
            raise ValueError(f"request: {own[0]} is set by the annotator; leave it out")
        if self.key_variable and self.price is None:
            raise ValueError(
                f"price: a server with a key ({self.key_variable}) may charge for its answers; "
                "give US dollars per million tokens, {input: 0, output: 0} if it does not"
            )
        return self


#: Who rates.
AnnotatorConfig = Annotated[
    GoldAnnotatorConfig
    | RewardModelAnnotatorConfig
    | FileAnnotatorConfig
    | EndpointAnnotatorConfig,
    Field(discriminator="kind"),
]
#: The section of each kind.
ANNOTATORS: dict[str, type[Section]] = {
    get_args(section.model_fields["kind"].annotation)[0]: section
    for section in get_args(get_args(AnnotatorConfig)[0])
}
AnnotatorSectionConfig: TypeAdapter = TypeAdapter(AnnotatorConfig)


class FeedbackConfig(Section):
    annotator: AnnotatorConfig | None
    best_per_prompt: Annotated[int, Field(ge=0)]
    random_per_prompt: Annotated[int, Field(ge=0)]
    prompts_per_iteration: Positive | None
    minimum: Annotated[float, Field(gt=0, le=1)]
    start: Literal["base", "previous"]
