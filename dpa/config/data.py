"""Raw data: sources, formats, column mappings, and the sizes of the generated world."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dpa.config.base import Fraction, Positive, RepositoryKind, Section

#: The attributes that a rating format brings: the published reward model's outputs, in its order,
#: and the safety of appendix A.
FORMAT_ATTRIBUTES = {
    "helpsteer": (
        "helpsteer-helpfulness",
        "helpsteer-correctness",
        "helpsteer-coherence",
        "helpsteer-complexity",
        "helpsteer-verbosity",
    ),
    "ultrafeedback": (
        "ultrafeedback-overall_score",
        "ultrafeedback-instruction_following",
        "ultrafeedback-truthfulness",
        "ultrafeedback-honesty",
        "ultrafeedback-helpfulness",
    ),
    "beavertails": ("beavertails-is_safe",),
}


class SourceConfig(Section):
    """Where rows are read from: a local file, or a hub data set when `revision` is given."""

    kind: ClassVar[RepositoryKind] = "dataset"

    path: str
    """A file (.jsonl, .jsonl.gz, .json, .csv, .parquet), a folder of such files, or a hub id."""
    revision: str | None = None
    """Commit of the hub data set, 40 digits; `locked` is the one in revisions.lock.yaml."""
    split: str | None = None
    """Split of the hub data set."""

    @model_validator(mode="after")
    def _hub_needs_both(self) -> "SourceConfig":
        if (self.revision is None) != (self.split is None):
            raise ValueError("a hub data set needs both revision and split; a local file neither")
        return self


class ColumnConfig(Section):
    """How a column of a user's table becomes an attribute on 0-100."""

    column: str
    """Name of the column in the file."""
    scale_from: Annotated[tuple[float, float] | Literal["rank"], Field(alias="from")]
    """`[low, high]`, mapped to 0-100 (high < low reverses the scale), or `rank`: the share of the
    training file's values that lie below."""

    @model_validator(mode="after")
    def _range(self) -> "ColumnConfig":
        if self.scale_from != "rank" and self.scale_from[0] == self.scale_from[1]:
            raise ValueError("from: low and high must differ (high < low reverses the scale)")
        return self


class RatingsConfig(Section):
    """A data set of labelled responses."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+$")]
    """Name in `data/ratings.jsonl` and in counts."""
    format: Literal["helpsteer", "ultrafeedback", "beavertails"]
    """Schema of the rows: that of nvidia/HelpSteer, openbmb/UltraFeedback or
    PKU-Alignment/BeaverTails."""
    train: SourceConfig
    """Rows to train on."""
    validation: SourceConfig | None = None
    """Rows to measure the reward model on; their prompts are held out of all training."""


class TableConfig(Section):
    """A user's own table of labelled responses: column mapping, scales, filters."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+$")]
    """Name in `data/ratings.jsonl` and in counts."""
    format: Literal["table"]
    """A file of one's own: docs/your-own-data.md."""
    train: SourceConfig
    """Rows to train on."""
    validation: SourceConfig | None = None
    """Rows to measure the reward model on; their prompts are held out of all training."""
    prompt: str = "prompt"
    """Column with the prompt: a string, or a list of {role, content} turns."""
    response: str = "response"
    """Column with the response."""
    attributes: Annotated[dict[str, ColumnConfig], Field(min_length=1)]
    """Attribute (one of `reward_model.attributes`) -> its column and scale."""
    keep: dict[str, list[str | int | float | bool]] = Field(default_factory=dict)
    """Filters: column -> allowed values; rows with other values are left out."""
    missing: list[str | int | float] = Field(default_factory=list)
    """Values that mean "not rated", besides null, NaN and blank cells."""


class DataConfig(Section):
    ratings: list[Annotated[RatingsConfig | TableConfig, Field(discriminator="format")]]
    train_prompts: list[SourceConfig]
    validation_prompts: list[SourceConfig]
    unseen_prompts: list[SourceConfig]
    original_responses: str
    sft: list[SourceConfig]
    pretraining: list[SourceConfig]
    prompts_per_half: Positive | None
    drop_sources: list[str]
    max_dropped_fraction: Fraction


class WorldConfig(Section):
    """Sizes of the quickstart's generated data."""

    helpsteer_rows: Positive
    """Rated responses in the HelpSteer-like training file."""
    ultrafeedback_prompts: Positive
    """Prompts in the UltraFeedback-like training file, four responses each."""
    validation_prompts: Positive
    """Held-out prompts about animals with ratings."""
    unseen_prompts: Positive
    """Held-out prompts about the two animals without."""
    pretraining_documents: Positive
    """Documents for the base model."""
    sft_rows: Positive
    """Demonstrations for the SFT policy."""
    alpacaeval_prompts: Positive
    """Held-out prompts of the AlpacaEval-like file."""
    rewardbench_rows: Positive
    """Rows of each subset of the RewardBench-like file."""


def describe(source: SourceConfig) -> str:
    """The source's name in a sidecar: a local path, or a hub data set with its revision."""
    return source.path if source.revision is None else f"{source.path}@{source.revision}"
