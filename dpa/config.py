"""The configuration: types and constraints here, defaults and descriptions in config.yaml.

Light on purpose (no torch): it is the first thing that every run does, and it fails before any job.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from dpa.directions import (
    check_direction,
    direction_name,
    evaluation_directions,
    objectives_of,
    single_objectives,
)
from dpa.errors import InputError
from dpa.revisions import BRANCH, LOCK_FILE, LOCKED, Kind, Lock, is_commit, read_lock

ROOT = Path(__file__).resolve().parent.parent

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]
#: A hub model at a commit: code on a branch may be another tomorrow.
PinnedModel = Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}$")]

#: The methods that an experiment may compare.
Method = Literal["dpa", "sft", "steerlm", "dpo", "rsf", "ppo", "reward_soup", "directional_dpo"]

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


class Section(BaseModel):
    """A section of the configuration: no unknown keys, no missing keys, no change after loading.

    Keys of lists' items and of null sections have no line in config.yaml: the string below such a
    field is its description in docs/configuration.md.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values(cls, values: Any) -> Any:
        """A key that takes numbers does not take true and false, which Python counts as 1 and 0."""
        for key, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(key)
            if isinstance(value, bool) and field and "bool" not in str(field.annotation):
                raise ValueError(f"{key}: {str(value).lower()} is not a number; give one")
        return values


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


class Wedge(Section):
    """Three objectives: v1 > v3 >= 0 and v2 <= 0 (appendix A), both angles uniform."""

    law: Literal["wedge"]
    """This law."""
    from_degrees: Annotated[float, Field(ge=-90, lt=0)]
    """The lowest angle of the second objective; it goes up to 0."""
    to_degrees: Annotated[float, Field(gt=0, le=45)]
    """The highest angle of the third objective; it goes down to 0."""


class Dirichlet(Section):
    """Any number of objectives: squared weights are Dirichlet."""

    law: Literal["dirichlet"]
    """This law."""
    signs: Annotated[list[Literal[-1, 1]], Field(min_length=2)]
    """Sign of each objective's weight."""
    concentration: Annotated[float, Field(gt=0)]
    """1 is uniform over trade-offs; larger values gather around equal weights."""


class Fixed(Section):
    """One direction only: what a scalar method optimises, and is not told."""

    law: Literal["fixed"]
    direction: Annotated[list[float], Field(min_length=1)]
    """Unit vector, one weight per objective."""

    @model_validator(mode="after")
    def _unit(self) -> "Fixed":
        try:
            check_direction(self.direction, len(self.direction))
        except InputError as error:
            raise ValueError(str(error)) from None
        return self


#: What `directions` may be; scripts also take Fixed.
SteeringLaw = Annotated[Arc | Wedge | Dirichlet, Field(discriminator="law")]
Law: TypeAdapter = TypeAdapter(
    Annotated[Arc | Wedge | Dirichlet | Fixed, Field(discriminator="law")]
)


class Source(Section):
    """Where rows are read from: a local file, or a hub data set when `revision` is given."""

    kind: ClassVar[Kind] = "dataset"

    path: str
    """A file (.jsonl, .jsonl.gz, .json, .csv, .parquet), a folder of such files, or a hub id."""
    revision: str | None = None
    """Commit of the hub data set, 40 digits; `locked` is the one in revisions.lock.yaml."""
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
    format: Literal["helpsteer", "ultrafeedback", "beavertails"]
    """Schema of the rows: that of nvidia/HelpSteer, openbmb/UltraFeedback or
    PKU-Alignment/BeaverTails."""
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


class Compute(Section):
    gpu: bool
    training_processes: Positive
    training_nodes: Positive
    cpus_per_gpu: Positive
    gpu_memory_gb: Annotated[float, Field(gt=0)]
    hang_minutes: Annotated[float, Field(ge=0)]


class Cluster(Section):
    gpu: str
    gpus: Positive


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


class Lora(Section):
    """Low-rank adapters on all linear layers but the output head, merged when a model is saved."""

    rank: Positive
    """Rank of the adapters."""
    alpha: Positive
    """Their scale is alpha / rank."""
    dropout: Fraction = 0.0
    """Dropout on their input."""


class Training(Section):
    """Hardware and optimiser settings that all training stages share."""

    per_device_batch_size: Positive
    bf16: bool
    gradient_checkpointing: bool
    packing: bool
    attention: str
    sharding: Literal["none", "fsdp"]
    lora: Lora | None
    save_steps: Positive | None
    adam_betas: tuple[Fraction, Fraction]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]


class Limits(Section):
    """Shares of rows and texts beyond which a stage stops."""

    max_dropped_fraction: Fraction
    max_truncated_fraction: Fraction


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

    kind: ClassVar[Kind] = "model"

    path: str | None
    revision: str | None


class BaseModelSection(Model):
    scratch: Scratch


class RewardModel(Model):
    engine: Literal["transformers", "vllm"]
    attributes: Annotated[list[str], Field(min_length=1)]
    lm_loss_weight: Annotated[float, Field(ge=0)]
    token_dropout: Fraction
    training: Schedule
    threads: Positive
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
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "int8_per_token_head"]
    temperature: Annotated[float, Field(gt=0)]
    max_new_tokens: Positive
    max_prompt_tokens: Positive
    prompts_per_chunk: Positive
    rows_per_batch: Positive
    max_truncated_fraction: Fraction

    @model_validator(mode="after")
    def _vllm_only(self) -> "Sampling":
        if self.engine == "transformers" and self.kv_cache_dtype != "auto":
            raise ValueError(
                f"kv_cache_dtype: {self.kv_cache_dtype} is vLLM's; set it to auto, or take "
                "engine vllm"
            )
        return self


class DpoRecipe(Section):
    """How DPO is trained."""

    beta: Annotated[float, Field(gt=0)]
    """Strength of the pull to the policy that training starts from."""
    training: Schedule
    """Training schedule."""


class Dpo(Model):
    recipe: str
    recipes: dict[str, DpoRecipe]

    @model_validator(mode="after")
    def _known(self) -> "Dpo":
        if self.recipe not in self.recipes:
            raise ValueError(f"recipe: {self.recipe!r} is not among {sorted(self.recipes)}")
        return self


class Rsf(Section):
    iterations: Positive
    training: Schedule


class Ppo(Section):
    beta: Annotated[float, Field(ge=0)]
    responses_per_prompt: Annotated[int, Field(ge=2)]
    training: Schedule


class RewardSoup(Section):
    experts: Literal["rsf", "ppo"]
    iterations: Positive


class DirectionalDpo(Section):
    start: Literal["sft", "dpa"]
    iterations: Positive
    beta: Annotated[float, Field(gt=0)]
    training: Schedule


#: An evaluation grid: that many directions over the law's support, or a list of them.
Grid = Annotated[int, Field(ge=2)] | Annotated[list[list[float]], Field(min_length=2)]


class Evaluation(Section):
    directions: Grid
    responses_per_prompt: Positive
    temperature: Annotated[float, Field(ge=0)]
    gold: Literal["quickstart"] | None
    hypervolume_reference: list[float]


#: Methods that a benchmark can judge: one policy folder each.
Judged = Literal["dpa", "sft", "steerlm", "dpo", "rsf", "ppo", "directional_dpo"]


class Judge(Section):
    """Who compares a response with AlpacaEval's reference output."""

    kind: Literal["gpt4_turbo", "endpoint", "annotations", "gold"]
    model: str | None = None
    base_url: str | None = None
    key_variable: str | None = None
    annotations: str | None = None
    concurrency: Positive = 5
    max_cost: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _complete(self) -> "Judge":
        needed = {"endpoint": ("model", "base_url"), "annotations": ("annotations",)}
        for key in needed.get(self.kind, ()):
            if getattr(self, key) is None:
                raise ValueError(f"a judge of kind {self.kind!r} needs {key}")
        return self


class AlpacaEval(Section):
    reference: Source
    prompts: Positive
    methods: Annotated[list[Judged], Field(min_length=1)]
    directions: Grid
    temperature: Annotated[float, Field(ge=0)]
    judge: Judge
    difficulty: str | None


class ScalarJudge(Model):
    """A Bradley-Terry reward model with one output, or the quickstart's gold scorer."""

    gold: Literal["quickstart"] | None

    @model_validator(mode="after")
    def _one(self) -> "ScalarJudge":
        if (self.path is None) == (self.gold is None):
            raise ValueError("give either path or gold, and null for the other")
        return self


class BenchmarkSection(Section):
    """A section of RewardBench."""

    name: Annotated[str, Field(min_length=1)]
    """Its name in tables."""
    subsets: Annotated[dict[str, Positive], Field(min_length=1)]
    """Each of its subsets with its number of prompts."""


class RewardBench(Section):
    data: Source
    sections: Annotated[list[BenchmarkSection], Field(min_length=1)]
    methods: Annotated[list[Judged], Field(min_length=1)]
    reference: Literal["sft", "dpo", "rsf", "ppo"]
    directions: Grid
    temperature: Annotated[float, Field(ge=0)]
    judge: ScalarJudge

    @model_validator(mode="after")
    def _distinct(self) -> "RewardBench":
        names = [section.name for section in self.sections]
        subsets = [subset for section in self.sections for subset in section.subsets]
        if len(set(names)) < len(names) or len(set(subsets)) < len(subsets):
            raise ValueError("sections: names of sections and of subsets must be unique")
        return self


class Figures(Section):
    published: bool
    uncertainty: Literal["ellipses", "bars", "none"]
    prompts: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    dpi: Annotated[int, Field(ge=50)]


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
    alpacaeval_prompts: Positive
    """Held-out prompts of the AlpacaEval-like file."""
    rewardbench_rows: Positive
    """Rows of each subset of the RewardBench-like file."""


class Config(Section):
    """The whole configuration of an experiment."""

    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    seed: Seed | Annotated[list[Seed], Field(min_length=1)]
    allow_floating: bool
    trust_remote_code: list[PinnedModel]
    limits: Limits
    threads: Positive
    shards: Positive
    compute: Compute
    cluster: Cluster
    objectives: Annotated[list[Objective], Field(min_length=1)]
    directions: SteeringLaw
    data: Data
    training: Training
    base_model: BaseModelSection
    reward_model: RewardModel
    sft: Sft
    steerlm: SteerLM
    dpa: Dpa
    sampling: Sampling
    methods: list[Method]
    scalar_direction: list[float]
    dpo: Dpo
    rsf: Rsf
    ppo: Ppo
    reward_soup: RewardSoup
    directional_dpo: DirectionalDpo
    evaluation: Evaluation
    alpacaeval: AlpacaEval | None
    rewardbench: RewardBench | None
    figures: Figures
    world: World | None

    @field_validator("alpacaeval", "rewardbench", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        """`--config alpacaeval=null` arrives as text."""
        return None if value == "null" else value

    @property
    def seeds(self) -> list[int]:
        """The base seeds: one, or those of a repeated experiment."""
        return [self.seed] if isinstance(self.seed, int) else self.seed

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
        weighed = objectives_of(self.directions.model_dump())
        if len(names) != weighed:
            raise ValueError(
                f"directions.law: {self.directions.law} is for exactly {weighed} objectives, "
                f"there are {len(names)}; choose another law (arc, wedge, dirichlet)"
            )
        try:
            check_direction(self.scalar_direction, len(names))
        except InputError as error:
            raise ValueError(f"scalar_direction: {error}") from None
        for section in ("evaluation", "alpacaeval", "rewardbench"):
            if (found := getattr(self, section)) is None:
                continue
            try:
                evaluation_directions(self.directions.model_dump(), found.directions)
            except InputError as error:
                raise ValueError(f"{section}.directions: {error}") from None
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seed: the seeds of a list must differ")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: names must be unique")
        soup = self.reward_soup
        if "reward_soup" in self.methods and soup.experts == "rsf":
            alone = [direction_name(v) for v in single_objectives(self.directions.model_dump())]
            scalar = direction_name(self.scalar_direction)
            if scalar in alone and soup.iterations > self.rsf.iterations and "rsf" in self.methods:
                raise ValueError(
                    "reward_soup.iterations: may not exceed rsf.iterations, whose policies it uses"
                )
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
    """`overlay` laid over `base`: sections merge key by key, everything else is replaced.

    A section that names another `law` is replaced as a whole.
    """
    merged = dict(base)
    # Another kind of law has other keys.
    if "law" in overlay and overlay["law"] != base.get("law"):
        return overlay
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


def read_experiment(path: Path, extending: tuple[Path, ...] = ()) -> dict:
    """An experiment's overlay, laid over that of the experiment it `extends`, if any."""
    if path.resolve() in extending:
        raise InputError(f"{path}: extends itself; let `extends` name another experiment")
    overlay = read_yaml(path)
    extended = overlay.pop("extends", None)
    if extended is None:
        return overlay
    base = ROOT / "experiments" / f"{extended}.yaml"
    return merge(read_experiment(base, (*extending, path.resolve())), overlay)


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
    values = merge(merge(base, read_experiment(path)), overrides)
    values["experiment"] = experiment
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, path)) from None
    return with_revisions(config, read_lock(ROOT / LOCK_FILE))


def with_revisions(config: Config, lock: Lock) -> Config:
    """The configuration with the lock's commits in the place of `locked`.

    What the lock lacks stays `locked`, or becomes the main branch if the configuration allows that.
    """
    unlocked = BRANCH if config.allow_floating else LOCKED

    def fill(found: Source | Model) -> Section:
        if found.revision != LOCKED or found.path is None:
            return found
        commit = lock.commits(found.kind).get(found.path, unlocked)
        return found.model_copy(update={"revision": commit})

    return _rebuilt(config, fill)


def hub_repositories(config: Config) -> Iterator[tuple[str, Source | Model]]:
    """(key, model or data set) of everything that the configuration names by path.

    Benchmarks of policies are left out where there are no prompts to train policies on.
    """
    unused = () if config.data.train_prompts else ("alpacaeval", "rewardbench")

    def walk(value: Any, key: str) -> Iterator[tuple[str, Source | Model]]:
        if isinstance(value, Source | Model) and value.path is not None:
            yield key, value
        if isinstance(value, Section):
            for name in type(value).model_fields:
                if name not in unused:
                    yield from walk(getattr(value, name), f"{key}.{name}".lstrip("."))
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                yield from walk(item, f"{key}.{number}")
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from walk(item, f"{key}.{name}")

    return walk(config, "")


def floating(config: Config) -> str | None:
    """What keeps a run from knowing which commits it uses, in one line; None when it knows."""
    unlocked: dict[str, None] = {}
    problems = []
    for key, found in hub_repositories(config):
        if found.revision == LOCKED:
            unlocked[str(found.path)] = None
        elif found.revision is not None:
            if not is_commit(found.revision) and not config.allow_floating:
                problems.append(f"{key}.revision: {found.revision!r} is no commit of 40 digits")
        elif found.kind == "model" and not Path(str(found.path)).exists():
            problems.append(f"{key}.path: no folder {found.path} here, and no revision of a hub id")
    if unlocked:
        problems.insert(0, f"not in {LOCK_FILE}: {', '.join(unlocked)}")
    return "; ".join(problems) or None


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` applied to every model and data set in it."""
    if isinstance(value, Section):
        fields = {name: _rebuilt(getattr(value, name), change) for name in type(value).model_fields}
        value = value.model_copy(update=fields)
        return change(value) if isinstance(value, Source | Model) else value
    if isinstance(value, list):
        return [_rebuilt(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _rebuilt(item, change) for name, item in value.items()}
    return value


def config_hash(config: Config) -> str:
    """Identifies a configuration, 16 hexadecimal digits."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]


def explain(error: ValidationError, path: Path) -> str:
    """One line per wrong key: its path, what is wrong, what to do."""
    lines = []
    for item in error.errors():
        # Of a key that takes one value or a list of them, say what is wrong with what was given.
        branches = [p for p in item["loc"] if str(p).startswith(("constrained-", "list["))]
        if branches and item["type"] == (
            "int_type" if isinstance(item["input"], list) else "list_type"
        ):
            continue
        key = ".".join(str(part) for part in item["loc"] if part not in branches)
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
