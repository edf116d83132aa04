"""An experiment's whole configuration: sections of methods, and cross-checks by subject."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from dpa.config.base import (
    Fraction,
    ModelConfig,
    OutputName,
    PinnedModel,
    Positive,
    Section,
    Seed,
    Temperature,
)
from dpa.config.benchmarks import AlpacaEvalConfig, RewardBenchConfig
from dpa.config.chat import ModelsConfig
from dpa.config.data import FORMAT_ATTRIBUTES, DataConfig, TableConfig, WorldConfig
from dpa.config.feedback import EndpointAnnotatorConfig, FeedbackConfig
from dpa.config.figures import FiguresConfig
from dpa.config.sampling import SamplingConfig
from dpa.config.steering import (
    MOST_DIRECTIONS,
    ArcConfig,
    CandidatesName,
    DirectionsConfig,
    Grid,
    ObjectiveConfig,
    Pessimism,
)
from dpa.config.trainer import ScheduleConfig, ScratchConfig, TrainerConfig
from dpa.directions import (
    check_direction,
    direction_name,
    evaluation_directions,
    expert_directions,
    grid_size,
    objectives_of,
)
from dpa.errors import InputError
from dpa.registry import METHODS, ExpertMethod, MethodName

#: What else lies in results/: the paper's numbers, what benchmarks measured, judges' answers.
RESERVED = ("published", "benchmarks", "judgements")


#: A dry run takes 2.4 ms of CPU a job (the quickstart with 100 and 400 shards): a minute for these.
MOST_JOBS = 20_000


#: Each is trained on all ratings, and scores everything that is sampled.
MOST_MEMBERS = 20


class ComputeConfig(Section):
    gpu: bool
    training_processes: Positive
    training_nodes: Positive
    cpus_per_gpu: Positive
    node_memory_gb: Annotated[float, Field(gt=0)]
    hang_minutes: Annotated[float, Field(ge=0)]


class PlanConfig(Section):
    """What only plan_run and preflight read."""

    gpu: str
    gpus: Positive
    gpu_memory_gb: Annotated[float, Field(gt=0)]


class LimitsConfig(Section):
    """Shares of rows and texts beyond which a stage stops."""

    max_dropped_fraction: Fraction
    max_truncated_fraction: Fraction


class BaseModelConfig(ModelConfig):
    scratch: ScratchConfig


class RewardTrainerConfig(Section):
    """What differs from `trainer` in the reward model's training."""

    per_device_batch_size: Positive | None
    max_grad_norm: Annotated[float, Field(gt=0)] | None


class RewardModelConfig(ModelConfig):
    members: Annotated[int, Field(ge=1, le=MOST_MEMBERS)]
    average: bool
    engine: Literal["transformers", "vllm"]
    attributes: Annotated[list[OutputName], Field(min_length=1)]
    lm_loss_weight: Annotated[float, Field(ge=0)]
    token_dropout: Fraction
    schedule: ScheduleConfig
    trainer: RewardTrainerConfig
    threads: Positive
    tokens_per_batch: Positive

    @property
    def scoring(self) -> int:
        """Models that score: the members, or their average."""
        return 1 if self.average else self.members


class SftConfig(ModelConfig):
    schedule: ScheduleConfig


class SteerLMConfig(Section):
    schedule: ScheduleConfig
    top_fraction: Annotated[float, Field(gt=0, le=1)]
    noise: Annotated[float, Field(ge=0)]
    uniform_share: Fraction
    curve_points: Annotated[int, Field(ge=2)]


class DpaConfig(Section):
    iterations: Annotated[int, Field(ge=0)]
    directions_per_prompt: Positive
    responses_per_direction: Positive
    distinct_answers: bool
    replay_fraction: Annotated[float, Field(ge=0, lt=1)]
    replay_prompt: Literal["direction", "plain"]
    pessimism: Pessimism
    candidates: CandidatesName
    neighbour_degrees: Annotated[float, Field(gt=0, le=180)]
    choose_iteration: Literal["last", "judge"]
    schedule: ScheduleConfig


class DpoRecipeConfig(Section):
    """How DPO is trained."""

    beta: Annotated[float, Field(gt=0)]
    """Strength of the pull to the policy that training starts from."""
    schedule: ScheduleConfig
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
    first_candidates: Literal["own", "dpa"]
    schedule: ScheduleConfig


class PpoConfig(Section):
    beta: Annotated[float, Field(ge=0)]
    responses_per_prompt: Annotated[int, Field(ge=2)]
    schedule: ScheduleConfig


class RewardSoupConfig(Section):
    experts: ExpertMethod
    experts_at: Literal["objectives", "ends"]
    iterations: Positive


class DirectionalDpoConfig(Section):
    start: Literal["sft", "dpa"]
    iterations: Positive
    beta: Annotated[float, Field(gt=0)]
    schedule: ScheduleConfig


class RicConfig(Section):
    iterations: Positive
    threshold: Annotated[float, Field(ge=0, lt=1)]
    originals: Annotated[int, Field(ge=0)]
    schedule: ScheduleConfig


class OnlineDpoConfig(Section):
    beta: Annotated[float, Field(gt=0)]
    contrast_beta: Annotated[float, Field(gt=0)] | None
    schedule: ScheduleConfig


class BestOfNConfig(Section):
    samples: Annotated[int, Field(ge=2)]


class JudgeShareConfig(Section):
    """A second reward model, of ratings that the first never sees."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the training ratings' prompts that train it, and not the reward model."""


class GivenJudgeConfig(ModelConfig):
    """A checkpoint that reads what the reward model reads."""

    path: str
    """Folder or hub id."""
    revision: str | None = None
    """Commit of the hub repository; `locked` is the one in revisions.lock.yaml."""
    attributes: list[OutputName] | None = None
    """Names of its outputs in order, where the checkpoint does not name them."""
    outputs: dict[str, Annotated[dict[str, float], Field(min_length=1)]]
    """For each objective the weights of its outputs whose sum is the reward, on 0-100."""


def _kind_of_judge(value: Any) -> str:
    """Which of the two a judge is: its location in messages, where it is left out (`explain`)."""
    given = "path" in value if isinstance(value, dict) else isinstance(value, GivenJudgeConfig)
    return "{path}" if given else "{share}"


ScoringJudgeConfig = Annotated[
    Annotated[JudgeShareConfig, Tag("{share}")] | Annotated[GivenJudgeConfig, Tag("{path}")],
    Discriminator(_kind_of_judge),
]


class EvaluationConfig(Section):
    directions: Grid
    outside_degrees: list[Annotated[float, Field(gt=-180, le=180)]]
    responses_per_prompt: Positive
    temperature: Temperature
    gold: Literal["quickstart"] | None
    judge: ScoringJudgeConfig | None
    hypervolume_reference: list[float]


class Config(Section):
    """The whole configuration of an experiment, in the order of config.yaml."""

    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    seed: Seed | Annotated[list[Seed], Field(min_length=1)]
    methods: list[MethodName]
    objectives: Annotated[list[ObjectiveConfig], Field(min_length=1)]
    directions: DirectionsConfig
    scalar_direction: list[float]
    data: DataConfig
    base_model: BaseModelConfig
    reward_model: RewardModelConfig
    sft: SftConfig
    steerlm: SteerLMConfig
    dpa: DpaConfig
    feedback: FeedbackConfig
    dpo: DpoConfig
    rsf: RsfConfig
    ppo: PpoConfig
    reward_soup: RewardSoupConfig
    directional_dpo: DirectionalDpoConfig
    ric: RicConfig
    online_dpo: OnlineDpoConfig
    best_of_n: BestOfNConfig
    models: ModelsConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    alpacaeval: AlpacaEvalConfig | None
    rewardbench: RewardBenchConfig | None
    figures: FiguresConfig
    trainer: TrainerConfig
    threads: Positive
    shards: Positive
    compute: ComputeConfig
    plan: PlanConfig
    rerun_on_code_change: bool
    allow_floating: bool
    trust_remote_code: list[PinnedModel]
    limits: LimitsConfig
    world: WorldConfig | None

    @field_validator("experiment")
    @classmethod
    def _own_folder(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"results/{value} is no experiment's folder; rename the experiment")
        return value

    @field_validator("alpacaeval", "rewardbench", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        """`--config alpacaeval=null` arrives as text."""
        return None if value == "null" else value

    @property
    def seeds(self) -> list[int]:
        """The base seeds: one, or those of a repeated experiment."""
        return [self.seed] if isinstance(self.seed, int) else self.seed

    @property
    def judge_share(self) -> float:
        """Share of the training ratings' prompts that are the judge's."""
        judge = self.evaluation.judge
        return judge.share if isinstance(judge, JudgeShareConfig) else 0

    @property
    def steered_attributes(self) -> list[str]:
        """The reward model's outputs that an objective weighs."""
        return list(dict.fromkeys(name for o in self.objectives for name in o.outputs))

    @property
    def rated_attributes(self) -> list[str]:
        """What an annotator of samples is asked for: of a language model, what is needed."""
        needed = isinstance(self.feedback.annotator, EndpointAnnotatorConfig)
        return self.steered_attributes if needed else self.reward_model.attributes

    @property
    def reward_trainer(self) -> TrainerConfig:
        """`trainer`, with what differs in the reward model's training."""
        own = self.reward_model.trainer.model_dump(exclude_none=True)
        return self.trainer.model_copy(update=own)

    # --- What must agree between sections, by subject ------------------------------------------

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> "Config":
        """Raise ValueError with a line for each contradiction.

        What reads one of the sections that the context names as `wrong` is left out.
        """
        wrong = (info.context or {}).get("wrong", ())
        right = {name: value for name, value in self if name not in wrong}
        known, found = Config.model_construct(**right), list[str]()
        for check in (
            Config._check_names,
            Config._check_attributes,
            Config._check_members,
            Config._check_directions,
            Config._check_data,
            Config._check_judge,
            Config._check_methods,
            Config._check_feedback,
            Config._check_size,
        ):
            try:
                found.extend(check(known))
            except AttributeError:  # of a wrong section nothing is known
                if not wrong:
                    raise
        if found:
            raise ValueError("\n".join(dict.fromkeys(found)))
        return self

    def _check_names(self) -> Iterator[str]:
        """No name twice in a list of names."""
        if len(set(self.seeds)) < len(self.seeds):
            yield "seed: the seeds of a list must differ"
        lists = {
            "reward_model.attributes: names": self.reward_model.attributes,
            "objectives: names": [objective.name for objective in self.objectives],
            "data.ratings: names": [ratings.name for ratings in self.data.ratings],
            "methods: names": self.methods,
        }
        for what, names in lists.items():
            if len(set(names)) < len(names):
                yield f"{what} must be unique"

    def _check_attributes(self) -> Iterator[str]:
        """The reward model has the outputs that objectives use and that ratings teach."""
        known = set(self.reward_model.attributes)
        for objective in self.objectives if self.data.train_prompts else ():
            if unknown := sorted(set(objective.outputs) - known):
                yield (
                    f"objectives: {objective.name} uses {unknown}, not in reward_model.attributes"
                )
        for ratings in self.data.ratings:
            brought = (
                ratings.attributes
                if isinstance(ratings, TableConfig)
                else FORMAT_ATTRIBUTES[ratings.format]
            )
            if unknown := sorted(set(brought) - known):
                yield (
                    f"data.ratings: {ratings.name} has attributes {unknown} that are not in "
                    "reward_model.attributes; add them there"
                )

    def _check_members(self) -> Iterator[str]:
        """Several reward models are trained, not given; one differs from no other."""
        members, given = self.reward_model.members, self.reward_model.path
        if members > 1 and given is not None:
            yield (
                f"reward_model.members: {members}, but reward_model.path gives one model, {given}; "
                "set members to 1, or path to null"
            )
        if self.reward_model.average and members == 1:
            yield (
                "reward_model.average: there is nothing to average, reward_model.members is 1; "
                "raise it, or set average to false"
            )
        if self.reward_model.average and self.feedback.annotator is not None:
            yield (
                "reward_model.average: reward models of later iterations are not averaged; "
                "set average to false, or feedback.annotator to null"
            )
        if self.reward_model.scoring == 1 and self.dpa.pessimism != "none":
            why = "their average is one" if self.reward_model.average else "members is 1"
            yield (
                f"dpa.pessimism: needs several reward models that score, and reward_model: {why}; "
                "set pessimism to none, or raise members without average"
            )

    def _check_directions(self) -> Iterator[str]:
        """Directions, grids and reference corners have a weight for each objective."""
        objectives = len(self.objectives)
        if len(self.evaluation.hypervolume_reference) != objectives:
            yield "evaluation.hypervolume_reference: give one value per objective"
        try:
            check_direction(self.scalar_direction, objectives)
        except InputError as error:
            yield f"scalar_direction: {error}"
        distribution = self.directions.model_dump()
        if objectives != (weighed := objectives_of(distribution)):
            yield (
                f"directions.distribution: {self.directions.distribution} is for exactly {weighed} "
                f"objectives, there are {objectives}; choose another (arc, wedge, dirichlet)"
            )
        for section in ("evaluation", "alpacaeval", "rewardbench"):
            if (found := getattr(self, section)) is None:
                continue
            try:
                evaluation_directions(distribution, found.directions)
            except InputError as error:
                yield f"{section}.directions: {error}"
        yield from self._check_outside()

    def _check_outside(self) -> Iterator[str]:
        """Directions outside of an arc are outside of it, and not too many."""
        named, arc = "evaluation.outside_degrees", self.directions
        angles = self.evaluation.outside_degrees
        if angles and not isinstance(arc, ArcConfig):
            yield (
                f"{named}: only an arc has angles, and directions.distribution is "
                f"{arc.distribution}; leave it empty"
            )
        for angle in angles:
            if isinstance(arc, ArcConfig) and arc.from_degrees <= angle <= arc.to_degrees:
                yield (
                    f"{named}: {angle:g} is within the arc, from {arc.from_degrees:g} to "
                    f"{arc.to_degrees:g}; evaluation.directions has those"
                )
        if grid_size(self.evaluation.directions) + len(angles) > MOST_DIRECTIONS:
            yield f"{named}: with evaluation.directions more than {MOST_DIRECTIONS}"

    def _check_data(self) -> Iterator[str]:
        """Prompts come with held-out ones, and with responses that were rated."""
        made = "results/{experiment}/data/raw/"
        world, sources = self.world, self.data.validation_prompts
        if world is not None and all(source.path.startswith(made) for source in sources):
            try:
                check_shown(self.figures.prompts, world.validation_prompts)
            except ValueError as error:
                yield str(error)
        if bool(self.data.train_prompts) != bool(self.data.validation_prompts):
            yield "data: give both train_prompts and validation_prompts, or neither"
        if self.data.unseen_prompts and not self.data.validation_prompts:
            yield "data: unseen_prompts come beside validation_prompts; give both"
        rated = [ratings.name for ratings in self.data.ratings]
        if self.data.train_prompts and self.data.original_responses not in rated:
            yield (
                f"data.original_responses: {self.data.original_responses!r} is not among the names "
                f"in data.ratings, {rated}"
            )

    def _check_judge(self) -> Iterator[str]:
        """A judge has ratings to learn from, or an output for each objective."""
        judge = self.evaluation.judge
        if isinstance(judge, JudgeShareConfig) and not self.data.ratings:
            yield "evaluation.judge.share: a share of no data.ratings; give ratings"
        if judge is None and self.dpa.choose_iteration == "judge":
            yield "dpa.choose_iteration: judge, and evaluation.judge is null; set one"
        names = [objective.name for objective in self.objectives]
        if isinstance(judge, GivenJudgeConfig) and set(judge.outputs) != set(names):
            yield (
                f"evaluation.judge.outputs: maps {sorted(judge.outputs)}, and the objectives are "
                f"{names}; give outputs for each"
            )

    def _check_methods(self) -> Iterator[str]:
        """Methods that use others' policies and samples find them."""
        if self.rsf.first_candidates == "dpa" and not (
            "dpa" in self.methods and self.dpa.iterations
        ):
            yield (
                "rsf.first_candidates: dpa, and there is no iteration of dpa to take them from; "
                "set it to own, or add dpa to methods"
            )
        soup = self.reward_soup
        if "reward_soup" not in self.methods:
            return
        if soup.experts_at == "ends" and self.directions.distribution != "arc":
            yield (
                "reward_soup.experts_at: only an arc has two ends, and directions.distribution is "
                f"{self.directions.distribution}; set it to objectives"
            )
            return
        if not METHODS[soup.experts].is_loop:
            return
        experts = expert_directions(self.directions.model_dump(), soup.experts_at)
        names = [direction_name(v) for v in experts]
        shared = direction_name(self.scalar_direction) in names and "rsf" in self.methods
        if shared and soup.iterations > self.rsf.iterations:
            yield "reward_soup.iterations: may not exceed rsf.iterations, whose policies it uses"

    def _check_feedback(self) -> Iterator[str]:
        """Samples are rated for a DPA whose reward model can be trained again."""
        feedback, named = self.feedback, "feedback.annotator"
        if feedback.annotator is None:
            return
        if not self.data.ratings:
            yield f"{named}: there are no data.ratings to train reward models on"
        if not feedback.best_per_prompt + feedback.random_per_prompt:
            yield (
                f"{named}: feedback.best_per_prompt and random_per_prompt are both 0, so nothing "
                "would be rated; raise one of them"
            )
        if feedback.annotator.kind == "gold" and self.world is None:
            yield f"{named}: `gold` knows the quickstart's world only; choose another"
        shared = feedback.annotator.kind == "file" and "{experiment}" not in feedback.annotator.path
        if shared and len(self.seeds) > 1:
            yield (
                f"{named}.path: each seed has samples of its own; put {{experiment}}, which "
                "stands for the experiment and the seed, into the path"
            )
        given = self.reward_model.path
        if feedback.start == "previous" and given is not None and self.base_model.path is None:
            yield (
                f"feedback.start: previous, and {given} (reward_model.path) was not made from a "
                "base model from scratch; give base_model.path, or set start to base"
            )
        yield from self._check_rated_attributes()
        if taken := [r.name for r in self.data.ratings if re.fullmatch(r"feedback-\d+", r.name)]:
            yield (
                f"data.ratings: {taken[0]} is the name of an iteration's own ratings "
                "(feedback.annotator); choose another"
            )

    def _check_rated_attributes(self) -> Iterator[str]:
        """What an annotator rates are attributes of the reward model, on scales that are known."""
        annotator, named = self.feedback.annotator, "feedback.annotator"
        maps = ("outputs", "scales", "rubrics")
        given = {name for key in maps for name in getattr(annotator, key, {})}
        if unknown := sorted(given - set(self.reward_model.attributes)):
            yield f"{named}: {unknown} are not in reward_model.attributes"
        public = {name for names in FORMAT_ATTRIBUTES.values() for name in names}
        if isinstance(annotator, EndpointAnnotatorConfig):
            yield from self._check_rubrics(annotator, public)
        steered = set(self.steered_attributes)
        if hasattr(annotator, "scales") and (without := sorted(steered - public - given)):
            yield (
                f"{named}.scales: {without[0]} is no attribute of a public data set, and has no "
                "scale; give its lowest and highest rating, [low, high]"
            )

    def _check_rubrics(self, annotator: EndpointAnnotatorConfig, public: set[str]) -> Iterator[str]:
        """Whoever is told in words what to rate is told so of each attribute, and its scale."""
        named = "feedback.annotator.rubrics"
        for name, rubric in annotator.rubrics.items():
            if name in public and rubric.scale is not None:
                yield f"{named}.{name}.scale: it is rated on its data set's scale; leave this out"
            if name not in public and rubric.scale is None:
                yield (
                    f"{named}.{name}: is no attribute of a public data set, and has no scale; give "
                    "its lowest and highest rating, scale: [low, high]"
                )
        without = set(self.steered_attributes) - public - set(annotator.rubrics)
        if without:
            yield (
                f"{named}: {min(without)} is no attribute of a public data set, and has no rubric; "
                "say what its ratings mean, {text, scale: [low, high]}"
            )

    def _check_size(self) -> Iterator[str]:
        """No more jobs than a dry run can list: an iteration has one that samples and one of
        each reward model that scores for each shard, and some more."""
        loops = [name for name in self.methods if METHODS[name].is_loop]
        iterations = sum(getattr(self, name).iterations for name in loops)
        if "reward_soup" in self.methods:
            iterations += len(self.objectives) * self.reward_soup.iterations
        scattered = (1 + self.reward_model.scoring) * self.shards
        jobs = len(self.seeds) * (iterations + 1) * (scattered + 6)
        if jobs > MOST_JOBS:
            yield (
                f"some {jobs:,} jobs ({len(self.seeds)} seeds, {iterations} iterations of all "
                f"methods, {self.shards} shards), more than the {MOST_JOBS:,} that can be planned: "
                "lower shards, iterations, or the number of seeds"
            )


def check_shown(positions: list[int], prompts: int) -> None:
    """Raise ValueError when figures are to show prompts that there are not."""
    if max(positions) >= prompts:
        raise ValueError(
            f"figures.prompts: position {max(positions)}, but there are {prompts} validation "
            f"prompts, 0 to {prompts - 1}"
        )
