"""The configuration: types and constraints here, defaults and descriptions in config.yaml.

Light on purpose (no torch): it is the first thing that every run does, and it fails before any job.
"""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dpa.errors import InputError

ROOT = Path(__file__).resolve().parent.parent

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]

#: The attributes that a rating format brings: the published reward model's outputs, in its order.
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
}


class Section(BaseModel):
    """A section of the configuration: no unknown keys, no missing keys, no change after loading.

    Keys of lists' items and of null sections have no line in config.yaml: the string below such a
    field is its description in docs/configuration.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Objective(Section):
    """One thing that users steer."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")]
    """Its name in the system prompt."""
    outputs: Annotated[dict[str, float], Field(min_length=1)]
    """Reward-model output -> weight; the weighted sum is the objective's reward (0-100)."""


class Arc(Section):
    """Directions (cos a, sin a) with a uniform between two angles."""

    law: Literal["arc"]
    from_degrees: Annotated[float, Field(ge=-90, le=0)]
    to_degrees: Annotated[float, Field(ge=-90, le=90)]

    @model_validator(mode="after")
    def _ordered(self) -> "Arc":
        if self.from_degrees >= self.to_degrees:
            raise ValueError("from_degrees must be below to_degrees")
        return self


class Source(Section):
    """Where rows are read from: a local file, or a hub data set when `revision` is given."""

    path: str
    """A file (.jsonl, .jsonl.gz, .json, .csv, .parquet), a folder of such files, or a hub id."""
    revision: str | None = None
    """Commit of the hub data set."""
    split: str | None = None
    """Split of the hub data set."""

    @model_validator(mode="after")
    def _hub_needs_both(self) -> "Source":
        if (self.revision is None) != (self.split is None):
            raise ValueError("a hub data set needs both revision and split; a local file neither")
        return self


class Column(Section):
    """How a column of a user's table becomes an attribute on 0-100."""

    column: str
    """Name of the column in the file."""
    scale_from: Annotated[tuple[float, float] | Literal["rank"], Field(alias="from")]
    """`[low, high]`, mapped to 0-100 (high < low reverses the scale), or `rank`: the share of the
    training file's values that lie below."""

    @model_validator(mode="after")
    def _range(self) -> "Column":
        if self.scale_from != "rank" and self.scale_from[0] == self.scale_from[1]:
            raise ValueError("from: low and high must differ (high < low reverses the scale)")
        return self


class Ratings(Section):
    """A data set of labelled responses."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+$")]
    """Name in `data/ratings.jsonl` and in counts."""
    format: Literal["helpsteer", "ultrafeedback"]
    """Schema of the rows: that of nvidia/HelpSteer or of openbmb/UltraFeedback."""
    train: Source
    """Rows to train on."""
    validation: Source | None = None
    """Rows to measure the reward model on; their prompts are held out of all training."""


class Table(Section):
    """A user's own table of labelled responses: column mapping, scales, filters."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+$")]
    """Name in `data/ratings.jsonl` and in counts."""
    format: Literal["table"]
    """A file of one's own: docs/your-own-data.md."""
    train: Source
    """Rows to train on."""
    validation: Source | None = None
    """Rows to measure the reward model on; their prompts are held out of all training."""
    prompt: str = "prompt"
    """Column with the prompt: a string, or a list of {role, content} turns."""
    response: str = "response"
    """Column with the response."""
    attributes: Annotated[dict[str, Column], Field(min_length=1)]
    """Attribute (one of `reward_model.attributes`) -> its column and scale."""
    keep: dict[str, list[str | int | float | bool]] = {}
    """Filters: column -> allowed values; rows with other values are left out."""
    missing: list[str | int | float] = []
    """Values that mean "not rated", besides null, NaN and blank cells."""


class Schedule(Section):
    """A training stage's schedule. `batch_size` is global: over all devices and accumulation."""

    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    epochs: Annotated[float, Field(ge=0)]
    """Passes over the rows."""
    batch_size: Positive
    """Rows per optimiser step, over all devices and accumulation steps."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps in which the learning rate rises to its peak."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"]
    """How the learning rate falls after the warm-up."""
    max_length: Positive
    """Longest sequence, in tokens."""


class Training(Section):
    """Hardware and optimiser settings that all training stages share."""

    per_device_batch_size: Positive
    bf16: bool
    gradient_checkpointing: bool
    packing: bool
    attention: str
    adam_betas: tuple[Fraction, Fraction]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]


class Data(Section):
    ratings: list[Annotated[Ratings | Table, Field(discriminator="format")]]
    train_prompts: list[Source]
    validation_prompts: list[Source]
    original_responses: str
    sft: list[Source]
    pretraining: list[Source]
    prompts_per_half: Positive | None
    drop_sources: list[str]
    max_dropped_fraction: Fraction


class Scratch(Section):
    vocab_size: Annotated[int, Field(ge=300)]
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    heads: Positive
    max_positions: Positive
    initializer_range: Annotated[float, Field(gt=0)]
    pretraining: Schedule

    @model_validator(mode="after")
    def _heads(self) -> "Scratch":
        if self.hidden_size % (2 * self.heads):
            raise ValueError("hidden_size must be an even multiple of heads")
        return self


class Model(Section):
    """A model: a folder or hub repository (with its commit), or null to make one."""

    path: str | None
    revision: str | None


class BaseModelSection(Model):
    scratch: Scratch


class RewardModel(Model):
    attributes: Annotated[list[str], Field(min_length=1)]
    lm_loss_weight: Annotated[float, Field(ge=0)]
    token_dropout: Fraction
    training: Schedule
    tokens_per_batch: Positive


class Sft(Model):
    training: Schedule


class SteerLM(Section):
    training: Schedule
    top_fraction: Annotated[float, Field(gt=0, le=1)]
    noise: Annotated[float, Field(ge=0)]
    uniform_share: Fraction
    curve_points: Annotated[int, Field(ge=2)]


class Dpa(Section):
    iterations: Annotated[int, Field(ge=0)]
    directions_per_prompt: Positive
    responses_per_direction: Positive
    replay_fraction: Annotated[float, Field(ge=0, lt=1)]
    training: Schedule


class Sampling(Section):
    engine: Literal["vllm", "transformers"]
    temperature: Annotated[float, Field(gt=0)]
    max_new_tokens: Positive
    max_prompt_tokens: Positive
    prompts_per_chunk: Positive
    rows_per_batch: Positive
    max_truncated_fraction: Fraction


class Dpo(Model):
    beta: Annotated[float, Field(gt=0)]
    training: Schedule


class Evaluation(Section):
    directions: Annotated[int, Field(ge=2)]
    responses_per_prompt: Positive
    temperature: Annotated[float, Field(ge=0)]
    gold: Literal["quickstart"] | None
    hypervolume_reference: list[float]


class World(Section):
    """Sizes of the quickstart's generated data."""

    helpsteer_rows: Positive
    """Rated responses in the HelpSteer-like training file."""
    ultrafeedback_prompts: Positive
    """Prompts in the UltraFeedback-like training file, four responses each."""
    validation_prompts: Positive
    """Held-out prompts."""
    pretraining_documents: Positive
    """Documents for the base model."""
    sft_rows: Positive
    """Demonstrations for the SFT policy."""


class Config(Section):
    """The whole configuration of an experiment."""

    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    seed: Annotated[int, Field(ge=0)]
    threads: Positive
    shards: Positive
    objectives: Annotated[list[Objective], Field(min_length=1)]
    directions: Arc
    data: Data
    training: Training
    base_model: BaseModelSection
    reward_model: RewardModel
    sft: Sft
    steerlm: SteerLM
    dpa: Dpa
    sampling: Sampling
    baselines: list[Literal["sft", "steerlm", "dpo"]]
    dpo: Dpo
    evaluation: Evaluation
    world: World | None

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        known = set(self.reward_model.attributes)
        if len(known) < len(self.reward_model.attributes):
            raise ValueError("reward_model.attributes: names must be unique")
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError("objectives: names must be unique")
        if self.data.train_prompts:
            for objective in self.objectives:
                if unknown := sorted(set(objective.outputs) - known):
                    raise ValueError(
                        f"objectives: {objective.name} uses {unknown}, "
                        "not in reward_model.attributes"
                    )
        data_sets = [ratings.name for ratings in self.data.ratings]
        if len(set(data_sets)) < len(data_sets):
            raise ValueError("data.ratings: names must be unique")
        for ratings in self.data.ratings:
            brought = (
                ratings.attributes
                if isinstance(ratings, Table)
                else FORMAT_ATTRIBUTES[ratings.format]
            )
            if unknown := sorted(set(brought) - known):
                raise ValueError(
                    f"data.ratings: {ratings.name} has attributes {unknown} that are not in "
                    "reward_model.attributes; add them there"
                )
        if len(self.evaluation.hypervolume_reference) != len(names):
            raise ValueError("evaluation.hypervolume_reference: give one value per objective")
        if len(names) != 2:
            raise ValueError("directions.law: arc is for exactly two objectives")
        if bool(self.data.train_prompts) != bool(self.data.validation_prompts):
            raise ValueError("data: give both train_prompts and validation_prompts, or neither")
        rated = [ratings.name for ratings in self.data.ratings]
        if self.data.train_prompts and self.data.original_responses not in rated:
            raise ValueError(
                f"data.original_responses: {self.data.original_responses!r} is not among the names "
                f"in data.ratings, {rated}"
            )
        return self


def merge(base: dict, overlay: dict) -> dict:
    """`overlay` laid over `base`: sections merge key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


class UniqueKeys(yaml.SafeLoader):
    """A safe YAML loader that refuses a key given twice, of which YAML would keep the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict:
    """A YAML mapping. Raises InputError naming the file (and the line, when it does not parse)."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys)
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in (ROOT / "experiments").glob("*.yaml")))
        raise InputError(f"{path}: no such file (known experiments: {known})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of keys at the top level")
    return content


def load_config(overrides: dict[str, Any] | None = None) -> Config:
    """config.yaml, overlaid by the experiment's file, overlaid by `overrides` (--config).

    Strings in `overrides` are coerced to the key's type. Raises InputError listing every wrong key
    with its path and the remedy.
    """
    overrides = dict(overrides or {})
    base = read_yaml(ROOT / "config.yaml")
    experiment = str(overrides.pop("experiment", base["experiment"]))
    if experiment.endswith((".yaml", ".yml")):
        path, experiment = Path(experiment), Path(experiment).stem
    else:
        path = ROOT / "experiments" / f"{experiment}.yaml"
    values = merge(merge(base, read_yaml(path)), overrides)
    values["experiment"] = experiment
    try:
        return Config.model_validate(fill_in(values, experiment))
    except ValidationError as error:
        raise InputError(explain(error, path)) from None


def config_hash(config: Config) -> str:
    """Identifies a configuration, 16 hexadecimal digits."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]


def fill_in(value: Any, experiment: str) -> Any:
    """Replace `{experiment}` in every string."""
    if isinstance(value, dict):
        return {key: fill_in(item, experiment) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_in(item, experiment) for item in value]
    return value.replace("{experiment}", experiment) if isinstance(value, str) else value


def explain(error: ValidationError, path: Path) -> str:
    """One line per wrong key: its path, what is wrong, what to do."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            advice = f"unknown key{_nearest(item['loc'])}; see docs/configuration.md"
        elif item["type"] == "missing":
            advice = "missing; see docs/configuration.md"
        else:
            advice = item["msg"].removeprefix("Value error, ")
            if not isinstance(item["input"], dict | BaseModel):
                advice += f" (got {item['input']!r:.80})"
        # What contradicts across sections has no key of its own: its message names the keys.
        lines.append(f"  {key}: {advice}" if key else f"  {advice}")
    return f"bad configuration (config.yaml < {os.path.relpath(path)} < --config):\n" + "\n".join(
        lines
    )


def _nearest(location: tuple) -> str:
    """A guess at what a misspelt key was meant to be."""
    import difflib

    section: Any = read_yaml(ROOT / "config.yaml")
    for part in location[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    items: tuple[type[Section], ...] = (Objective, Source, Column, Ratings, Table, World)
    known = (
        [str(key) for key in section]
        if isinstance(section, dict)
        else [field.alias or name for item in items for name, field in item.model_fields.items()]
    )
    match = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f", did you mean {match[0]!r}?" if match else ""
