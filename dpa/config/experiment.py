"""An experiment's whole configuration: sections of methods, and cross-checks by subject."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dpa.config.base import Fraction, ModelConfig, PinnedModel, Positive, Section, Seed
from dpa.config.benchmarks import AlpacaEvalConfig, RewardBenchConfig
from dpa.config.data import FORMAT_ATTRIBUTES, DataConfig, TableConfig, WorldConfig
from dpa.config.sampling import SamplingConfig
from dpa.config.steering import DirectionsConfig, Grid, ObjectiveConfig
from dpa.config.trainer import ScheduleConfig, ScratchConfig, TrainerConfig
from dpa.directions import (
    check_direction,
    direction_name,
    evaluation_directions,
    objectives_of,
    single_objectives,
)
from dpa.errors import InputError

#: The methods that an experiment may compare.
MethodName = Literal["dpa", "sft", "steerlm", "dpo", "rsf", "ppo", "reward_soup", "directional_dpo"]


class ComputeConfig(Section):
    gpu: bool
    training_processes: Positive
    training_nodes: Positive
    cpus_per_gpu: Positive
    gpu_memory_gb: Annotated[float, Field(gt=0)]
    hang_minutes: Annotated[float, Field(ge=0)]


class PlanConfig(Section):
    gpu: str
    gpus: Positive


class LimitsConfig(Section):
    """Shares of rows and texts beyond which a stage stops."""

    max_dropped_fraction: Fraction
    max_truncated_fraction: Fraction


class BaseModelConfig(ModelConfig):
    scratch: ScratchConfig


class RewardModelConfig(ModelConfig):
    engine: Literal["transformers", "vllm"]
    attributes: Annotated[list[str], Field(min_length=1)]
    lm_loss_weight: Annotated[float, Field(ge=0)]
    token_dropout: Fraction
    training: ScheduleConfig
    threads: Positive
    tokens_per_batch: Positive


class SftConfig(ModelConfig):
    training: ScheduleConfig


class SteerLMConfig(Section):
    training: ScheduleConfig
    top_fraction: Annotated[float, Field(gt=0, le=1)]
    noise: Annotated[float, Field(ge=0)]
    uniform_share: Fraction
    curve_points: Annotated[int, Field(ge=2)]


class DpaConfig(Section):
    iterations: Annotated[int, Field(ge=0)]
    directions_per_prompt: Positive
    responses_per_direction: Positive
    replay_fraction: Annotated[float, Field(ge=0, lt=1)]
    training: ScheduleConfig


class DpoRecipeConfig(Section):
    """How DPO is trained."""

    beta: Annotated[float, Field(gt=0)]
    """Strength of the pull to the policy that training starts from."""
    training: ScheduleConfig
    """Training schedule."""


class DpoConfig(ModelConfig):
    recipe: str
    recipes: dict[str, DpoRecipeConfig]

    @model_validator(mode="after")
    def _known(self) -> "DpoConfig":
        if self.recipe not in self.recipes:
            raise ValueError(f"recipe: {self.recipe!r} is not among {sorted(self.recipes)}")
        return self


class RsfConfig(Section):
    iterations: Positive
    training: ScheduleConfig


class PpoConfig(Section):
    beta: Annotated[float, Field(ge=0)]
    responses_per_prompt: Annotated[int, Field(ge=2)]
    training: ScheduleConfig


class RewardSoupConfig(Section):
    experts: Literal["rsf", "ppo"]
    iterations: Positive


class DirectionalDpoConfig(Section):
    start: Literal["sft", "dpa"]
    iterations: Positive
    beta: Annotated[float, Field(gt=0)]
    training: ScheduleConfig


class EvaluationConfig(Section):
    directions: Grid
    responses_per_prompt: Positive
    temperature: Annotated[float, Field(ge=0)]
    gold: Literal["quickstart"] | None
    hypervolume_reference: list[float]


class FiguresConfig(Section):
    published: bool
    uncertainty: Literal["ellipses", "bars", "none"]
    prompts: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    dpi: Annotated[int, Field(ge=50)]


class Config(Section):
    """The whole configuration of an experiment."""

    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    seed: Seed | Annotated[list[Seed], Field(min_length=1)]
    allow_floating: bool
    trust_remote_code: list[PinnedModel]
    limits: LimitsConfig
    threads: Positive
    shards: Positive
    compute: ComputeConfig
    cluster: PlanConfig
    objectives: Annotated[list[ObjectiveConfig], Field(min_length=1)]
    directions: DirectionsConfig
    data: DataConfig
    training: TrainerConfig
    base_model: BaseModelConfig
    reward_model: RewardModelConfig
    sft: SftConfig
    steerlm: SteerLMConfig
    dpa: DpaConfig
    sampling: SamplingConfig
    methods: list[MethodName]
    scalar_direction: list[float]
    dpo: DpoConfig
    rsf: RsfConfig
    ppo: PpoConfig
    reward_soup: RewardSoupConfig
    directional_dpo: DirectionalDpoConfig
    evaluation: EvaluationConfig
    alpacaeval: AlpacaEvalConfig | None
    rewardbench: RewardBenchConfig | None
    figures: FiguresConfig
    world: WorldConfig | None

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
                if isinstance(ratings, TableConfig)
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
