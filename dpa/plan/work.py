"""What each job has to do: tokens to train on, to sample, to score; what it leaves on disk.

One function per rule, from the configuration and the sizes of data sets. A rule that none is for is
taken for a light one if it asks for no GPU, and refused otherwise: a new rule cannot go unnoticed.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dpa.config.data import SourceConfig
from dpa.config.experiment import Config, GivenJudgeConfig, JudgeShareConfig
from dpa.config.feedback import EndpointAnnotatorConfig
from dpa.config.trainer import ScheduleConfig
from dpa.directions import grid_size
from dpa.errors import InputError
from dpa.feedback.endpoint import Use, expected_use
from dpa.feedback.rubrics import rubrics_of
from dpa.plan.assumptions import Assumptions, DataSet, Tokens, WorldTokens, shape_of
from dpa.registry import METHODS, parse_policy
from dpa.training.memory import Shape
from dpa.workflow.layout import Layout


class Job(NamedTuple):
    """A job of the workflow, as Snakemake sees it. `needs` are positions in the list of jobs."""

    rule: str
    wildcards: dict[str, str]
    gpus: int
    cores: int
    needs: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """What a job does.

    trained: tokens through forward and backward pass (all epochs); referred: tokens through a
    forward pass of a reference policy; read: prompt tokens before sampling; sampled: response
    tokens; scored: tokens through the reward model. `keeps` and `scratch` are bytes on disk:
    for good, and while it runs.
    """

    trained: float = 0
    referred: float = 0
    read: float = 0
    sampled: float = 0
    scored: float = 0
    keeps: float = 0
    scratch: float = 0
    sequence: float = 0
    """Mean tokens of a sampled sequence, prompt included."""
    of_reward_model: bool = False
    """Whether it is the reward model (or its base) that is trained, not a policy."""
    by_judge: bool = False
    """Whether it is the judge that scores."""
    own_sampler: bool = False
    """Sampled by the trainer with transformers, whatever the engine."""
    light: bool = False
    """Without a model; all that counts are its `rows`."""
    rows: float = 0
    """Rows of files that a light job reads."""

    @property
    def tokens(self) -> float:
        return self.trained + self.referred + self.read + self.sampled + self.scored


@dataclass(frozen=True)
class Sizes:
    """Rows and mean lengths of an experiment's data."""

    rated: list[DataSet]
    held_out_rated: int
    raw: int
    """Rows that prepare_data reads: ratings and prompts."""
    half: int
    validation: int
    unseen: int
    prompt: float
    response: float
    originals: int
    sft: list[DataSet]
    documents: list[DataSet]
    downloads: int
    system: float
    instruction: float
    sampled_response: float


@dataclass(frozen=True)
class Experiment:
    """An experiment, and everything that its jobs' work is reckoned from."""

    config: Config
    assumptions: Assumptions
    policy: Shape = field(init=False)
    base: Shape = field(init=False)
    reward: Shape = field(init=False)
    judge: Shape = field(init=False)
    """The reward model's where there is none."""
    sizes: Sizes = field(init=False)

    def __post_init__(self) -> None:
        config, assumptions = self.config, self.assumptions
        scratch = config.base_model.scratch
        base = shape_of(config.base_model, scratch, assumptions)
        given = config.sft.path is not None
        policy = shape_of(config.sft, None, assumptions) if given else base
        given = config.reward_model.path is not None
        reward = shape_of(config.reward_model, None, assumptions) if given else base
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "policy", policy)
        object.__setattr__(self, "reward", reward)
        match config.evaluation.judge:
            case GivenJudgeConfig() as judge:
                judge_shape = shape_of(judge, None, assumptions)
            case JudgeShareConfig():
                judge_shape = base
            case None:
                judge_shape = reward
        object.__setattr__(self, "judge", judge_shape)
        object.__setattr__(self, "sizes", _sizes(config, assumptions))

    # --- What several rules share -----------------------------------------------------------------

    def model_bytes(self, shape: Shape) -> float:
        """A saved model: in the precision of its master weights."""
        return SAVED_BYTES * shape.parameters

    def checkpoint_bytes(self, shape: Shape) -> float:
        """On disk while a training job runs: the model before it is moved into place, or two
        checkpoints (the last, and the one being written): weights and AdamW's moments, 12 bytes.
        """
        written = 2 * 12 if self.config.trainer.save_steps else SAVED_BYTES
        return written * shape.parameters

    def conditioned_prompt(self) -> float:
        return self.sizes.system + self.sizes.prompt

    def sampled_bytes(self, responses: float) -> float:
        size = self.assumptions.bytes
        return responses * (size.sampled_record + size.per_token * self.sizes.sampled_response)

    def scored_bytes(self, responses: float) -> float:
        size = self.assumptions.bytes
        return responses * (size.scored_record + size.per_token * self.sizes.sampled_response)

    def rated_samples(self) -> float:
        """Samples that are rated in an iteration, if no two are equal."""
        feedback, dpa = self.config.feedback, self.config.dpa
        each = min(
            feedback.best_per_prompt + feedback.random_per_prompt,
            dpa.directions_per_prompt * dpa.responses_per_direction,
        )
        return min(self.sizes.half, feedback.prompts_per_iteration or self.sizes.half) * each

    def rating_use(self, annotator: EndpointAnnotatorConfig) -> Use:
        """Calls and tokens of a language model that rates an iteration's samples."""
        samples, sizes = self.rated_samples(), self.sizes
        prompts = min(sizes.half, self.config.feedback.prompts_per_iteration or sizes.half)
        calls = prompts * math.ceil(samples / max(prompts, 1) / annotator.responses_per_call)
        rubrics = rubrics_of(self.config.rated_attributes, annotator.rubrics)
        texts = calls * sizes.prompt + samples * sizes.sampled_response
        return expected_use(rubrics, calls, samples, texts)

    def fine_tuning(self, rows: float, row_tokens: float, schedule: ScheduleConfig) -> Work:
        """SFT of the policy on rows of so many tokens."""
        return Work(
            trained=rows * row_tokens * schedule.epochs,
            keeps=self.model_bytes(self.policy),
            scratch=self.checkpoint_bytes(self.policy),
        )

    def preference(self, pairs: float, prompt: float, schedule: ScheduleConfig) -> Work:
        """DPO: both responses of a pair, through the policy and through its reference."""
        tokens = pairs * 2 * (prompt + self.sizes.response) * schedule.epochs
        return Work(
            trained=tokens,
            referred=tokens,
            keeps=self.model_bytes(self.policy),
            scratch=self.checkpoint_bytes(self.policy),
        )

    def scoring_tokens(self, prompts: float, responses: float, response_tokens: float) -> float:
        """A prompt's responses share the computation of what their inputs have in common."""
        shared = self.sizes.instruction + self.sizes.prompt
        return prompts * shared + responses * response_tokens


#: Bytes a weight takes in a saved policy or reward model.
SAVED_BYTES = 4


def work_of_job(job: Job, experiment: Experiment) -> Work:
    """What a job has to do. Raises InputError for a GPU job of an unknown rule."""
    if job.rule in HEAVY:
        return HEAVY[job.rule](experiment, job.wildcards)
    if job.gpus and job.rule != "preflight":
        raise InputError(
            f"rule {job.rule} asks for {job.gpus} GPUs, and dpa/plan/work.py does not know its "
            "work; add a function for it"
        )
    rows = ROWS.get(job.rule, _evaluated_rows)
    return Work(light=True, rows=rows(experiment, job.wildcards))


# --- Rules ----------------------------------------------------------------------------------------


def _pretrain(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    tokens = sum(d.rows * d.response_tokens for d in experiment.sizes.documents)
    schedule = experiment.config.base_model.scratch.schedule
    size = experiment.model_bytes(experiment.reward)
    return Work(trained=tokens * schedule.epochs, keeps=size, scratch=size, of_reward_model=True)


def _rated_tokens(experiment: Experiment) -> float:
    """Tokens of all ratings, as the reward model reads them."""
    sizes, longest = experiment.sizes, experiment.config.reward_model.schedule.max_length
    return sum(
        d.rows * d.responses * min(sizes.instruction + d.prompt_tokens + d.response_tokens, longest)
        for d in sizes.rated
    )


def _reward_model(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """On the ratings, and for an iteration on those of the samples of the ones before."""
    sizes, schedule = experiment.sizes, experiment.config.reward_model.schedule
    sample = sizes.instruction + sizes.prompt + sizes.sampled_response
    rated = (int(wildcards.get("iteration", 1)) - 1) * experiment.rated_samples()
    own = (1 - experiment.config.judge_share) * _rated_tokens(experiment)
    return _reward_training(experiment, own + rated * min(sample, schedule.max_length))


def _judge(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    return _reward_training(experiment, experiment.config.judge_share * _rated_tokens(experiment))


def _reward_training(experiment: Experiment, tokens: float) -> Work:
    """A reward model on so many tokens of ratings."""
    return Work(
        trained=tokens * experiment.config.reward_model.schedule.epochs,
        keeps=experiment.model_bytes(experiment.base),
        scratch=experiment.checkpoint_bytes(experiment.base),
        of_reward_model=True,
    )


def _reward_probe(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    return Work(scored=_rated_tokens(experiment))


def _reward_average(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    size = experiment.model_bytes(experiment.reward)
    return Work(keeps=size, scratch=size)


def _reward_model_evaluation(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    sizes = experiment.sizes
    held_out = sizes.held_out_rated + sizes.validation * sizes.originals
    return Work(
        scored=held_out * (sizes.instruction + sizes.prompt + sizes.response),
        by_judge=wildcards.get("scorer") == "judge",
    )


def _annotation(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    sizes = experiment.sizes
    prompts = (2 * sizes.half + sizes.validation) / experiment.config.shards
    responses = prompts * sizes.originals
    return Work(
        scored=experiment.scoring_tokens(prompts, responses, sizes.response),
        keeps=experiment.scored_bytes(responses),
    )


def _annotating(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """Another reward model (taken to be of ours' size) rates; other annotators are light."""
    annotator, sizes = experiment.config.feedback.annotator, experiment.sizes
    if annotator is None or annotator.kind != "reward_model":
        return Work(light=True)
    return Work(scored=experiment.rated_samples() * (sizes.prompt + sizes.sampled_response))


def _replay_annotation(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """The original responses to an iteration's prompts, which replay chooses among."""
    sizes = experiment.sizes
    prompts = sizes.half / experiment.config.shards
    responses = prompts * sizes.originals
    return Work(
        scored=experiment.scoring_tokens(prompts, responses, sizes.response),
        keeps=experiment.scored_bytes(responses),
    )


def _sft(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    schedule = experiment.config.sft.schedule
    rows = sum(d.rows for d in experiment.sizes.sft)
    lengths = (min(d.prompt_tokens + d.response_tokens, schedule.max_length) * d.rows
               for d in experiment.sizes.sft)  # fmt: skip
    return experiment.fine_tuning(rows, sum(lengths) / max(rows, 1), schedule)


def _steerlm(halves: int) -> Callable[[Experiment, dict[str, str]], Work]:
    def work(experiment: Experiment, wildcards: dict[str, str]) -> Work:
        sizes = experiment.sizes
        return experiment.fine_tuning(
            halves * sizes.half * sizes.originals,
            experiment.conditioned_prompt() + sizes.response,
            experiment.config.steerlm.schedule,
        )

    return work


def _sampling(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    sizes, dpa = experiment.sizes, experiment.config.dpa
    prompts = sizes.half / experiment.config.shards
    responses = prompts * dpa.directions_per_prompt * dpa.responses_per_direction
    conditioned = experiment.conditioned_prompt()
    # Samples that are asked for rewards each have a prompt of their own; those of a direction share
    # its prompt.
    layout = Layout(experiment.config)
    loop, iteration = wildcards["loop"], int(wildcards["iteration"])
    own = loop == "ric" or layout.samples_steerlm(loop, iteration)
    read = responses if own else prompts * dpa.directions_per_prompt
    return Work(
        read=read * conditioned,
        sampled=responses * sizes.sampled_response,
        sequence=conditioned + sizes.sampled_response,
        keeps=experiment.sampled_bytes(responses),
    )


def _scoring(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    sizes, dpa = experiment.sizes, experiment.config.dpa
    prompts = sizes.half / experiment.config.shards
    responses = prompts * dpa.directions_per_prompt * dpa.responses_per_direction
    return Work(
        scored=experiment.scoring_tokens(prompts, responses, sizes.sampled_response),
        keeps=experiment.scored_bytes(responses),
    )


def _finetuning(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    sizes, config = experiment.sizes, experiment.config
    section = getattr(config, wildcards["loop"].split("/")[0])
    rows = sizes.half * config.dpa.directions_per_prompt / (1 - config.dpa.replay_fraction)
    return experiment.fine_tuning(
        rows, experiment.conditioned_prompt() + sizes.sampled_response, section.schedule
    )


def _dpo(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    config, sizes = experiment.config, experiment.sizes
    return experiment.preference(
        2 * sizes.half, sizes.prompt, config.dpo.recipes[config.dpo.recipe].schedule
    )


def _directional_dpo(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    config = experiment.config
    pairs = experiment.sizes.half * config.dpa.directions_per_prompt
    return experiment.preference(
        pairs, experiment.conditioned_prompt(), config.directional_dpo.schedule
    )


def _ric(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """On what is kept of all iterations so far and of the originals, were rewards independent."""
    sizes, config = experiment.sizes, experiment.config
    dpa, ric = config.dpa, config.ric
    share = 1 - ric.threshold ** len(config.objectives)
    sampled = sizes.half * dpa.directions_per_prompt * dpa.responses_per_direction
    originals = min(2 * sizes.half * sizes.originals * share, ric.originals)
    rows = int(wildcards["iteration"]) * sampled * share + originals
    tokens = experiment.conditioned_prompt() + sizes.sampled_response
    return experiment.fine_tuning(rows, tokens, ric.schedule)


def _ppo(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    sizes, ppo = experiment.sizes, experiment.config.ppo
    prompts = 2 * sizes.half * ppo.schedule.epochs
    responses = prompts * ppo.responses_per_prompt
    tokens = responses * (sizes.prompt + sizes.sampled_response)
    return Work(
        trained=tokens,
        referred=2 * tokens,  # the reference, and the policy's own log-probabilities
        read=responses * sizes.prompt,
        sampled=responses * sizes.sampled_response,
        scored=experiment.scoring_tokens(prompts, responses, sizes.sampled_response),
        sequence=sizes.prompt + sizes.sampled_response,
        own_sampler=True,
        keeps=experiment.model_bytes(experiment.policy),
        scratch=experiment.checkpoint_bytes(experiment.policy),
    )


def _online_dpo(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """Two responses on each visit to a prompt, both of them in a pair."""
    sizes, online = experiment.sizes, experiment.config.online_dpo
    visits = 2 * sizes.half * online.schedule.epochs
    responses, prompt = 2 * visits, experiment.conditioned_prompt()
    tokens = responses * (prompt + sizes.sampled_response)
    contrasted = online.contrast_beta is not None
    return Work(
        trained=tokens * (2 if contrasted else 1),  # under the other direction, too
        # The reference; and under both directions, and the policy's own under the first.
        referred=tokens * (4 if contrasted else 1),
        read=visits * prompt,
        sampled=responses * sizes.sampled_response,
        scored=experiment.scoring_tokens(visits, responses, sizes.sampled_response),
        sequence=prompt + sizes.sampled_response,
        own_sampler=True,
        keeps=experiment.model_bytes(experiment.policy),
        scratch=experiment.checkpoint_bytes(experiment.policy),
    )


def _evaluation_sampling(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """Held-out prompts, under each direction (or condition) that the policy knows; a benchmark's
    are taken to be as long as ours.
    """
    config = experiment.config
    benchmark = wildcards.get("benchmark", "evaluation")  # Reward Soup's has no other
    policy = wildcards.get("policy", "reward_soup")
    asked = _evaluated_prompts(experiment, benchmark)
    asked *= _sampled_steerings(experiment, policy, benchmark)
    each = config.evaluation.responses_per_prompt if benchmark == "evaluation" else 1
    each *= Layout(config).samples_per_answer(policy)
    response = experiment.sizes.sampled_response
    return Work(
        read=asked * experiment.conditioned_prompt(),
        sampled=asked * each * response,
        sequence=experiment.conditioned_prompt() + response,
        keeps=experiment.sampled_bytes(asked * each),
    )


def _evaluation_scoring(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """The validation samples of a policy."""
    sizes, evaluation = experiment.sizes, experiment.config.evaluation
    prompts = _evaluated_prompts(experiment, "evaluation")
    asked = prompts * _steerings(experiment, wildcards["policy"], "evaluation")
    responses = asked * evaluation.responses_per_prompt
    return Work(
        scored=experiment.scoring_tokens(prompts, responses, sizes.sampled_response),
        keeps=experiment.scored_bytes(responses),
        by_judge=wildcards["scorer"] == "judge",
    )


def _divergence(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """The validation samples of a policy, through it and through the SFT policy."""
    sizes, evaluation = experiment.sizes, experiment.config.evaluation
    prompts = _evaluated_prompts(experiment, "evaluation")
    asked = prompts * _steerings(experiment, wildcards["policy"], "evaluation")
    responses = asked * evaluation.responses_per_prompt
    both = experiment.conditioned_prompt() + sizes.prompt + 2 * sizes.sampled_response
    return Work(referred=responses * both)


def _candidate_scoring(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """What best of n chooses among."""
    sizes, evaluation = experiment.sizes, experiment.config.evaluation
    policy, prompts = wildcards["policy"], _evaluated_prompts(experiment, "evaluation")
    responses = prompts * _sampled_steerings(experiment, policy, "evaluation")
    responses *= evaluation.responses_per_prompt
    responses *= Layout(experiment.config).samples_per_answer(policy)
    return Work(
        scored=experiment.scoring_tokens(prompts, responses, sizes.sampled_response),
        keeps=experiment.scored_bytes(responses),
    )


def _steerings(experiment: Experiment, policy: str, benchmark: str) -> int:
    """How many directions or conditions a policy answers; one if it knows none."""
    layout = Layout(experiment.config)
    conditions = layout.takes_conditions(policy)
    if not (METHODS[parse_policy(policy)[0]].is_steered or conditions):
        return 1
    if benchmark == "evaluation" and not conditions:
        return grid_size(layout.asked_grid)
    return grid_size(getattr(experiment.config, benchmark).directions)


def _sampled_steerings(experiment: Experiment, policy: str, benchmark: str) -> int:
    """How many it is sampled under: best of n of a policy that knows none is sampled once."""
    layout = Layout(experiment.config)
    chooses = layout.sampled_policy(policy) != policy
    if chooses and not layout.takes_directions(policy):
        return 1
    return _steerings(experiment, policy, benchmark)


def _evaluated_prompts(experiment: Experiment, benchmark: str) -> int:
    config = experiment.config
    if benchmark == "evaluation":
        return experiment.sizes.validation + experiment.sizes.unseen
    if benchmark == "alpacaeval":
        return config.alpacaeval.prompts if config.alpacaeval else 0
    sections = config.rewardbench.sections if config.rewardbench else []
    return sum(count for section in sections for count in section.subsets.values())


def _rewardbench_judging(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """The judge (taken to be of the reward model's size) rates a policy's responses."""
    rewardbench = experiment.config.rewardbench
    if rewardbench is None or rewardbench.judge.path is None:  # the gold scorer
        return Work(light=True)
    rated = _evaluated_prompts(experiment, "rewardbench")
    rated *= _steerings(experiment, wildcards["policy"], "rewardbench")
    return Work(scored=rated * (experiment.sizes.prompt + experiment.sizes.sampled_response))


def _rewardbench_scoring(experiment: Experiment, wildcards: dict[str, str]) -> Work:
    """The chosen and the rejected answer of each item, by the reward model."""
    sizes = experiment.sizes
    row = sizes.instruction + sizes.prompt + sizes.response
    return Work(scored=2 * _evaluated_prompts(experiment, "rewardbench") * row)


# --- Rows of light jobs ---------------------------------------------------------------------------


def _raw_rows(experiment: Experiment, wildcards: dict[str, str]) -> float:
    return experiment.sizes.raw


def _original_rows(experiment: Experiment, wildcards: dict[str, str]) -> float:
    return 2 * experiment.sizes.half * experiment.sizes.originals


def _sampled_rows(experiment: Experiment, wildcards: dict[str, str]) -> float:
    """All samples of an iteration."""
    dpa = experiment.config.dpa
    return experiment.sizes.half * dpa.directions_per_prompt * dpa.responses_per_direction


def _evaluated_rows(experiment: Experiment, wildcards: dict[str, str]) -> float:
    """The validation samples of all policies and seeds: no table or figure reads more."""
    config = experiment.config
    layout = Layout(config)
    steerings = sum(_steerings(experiment, policy, "evaluation") for policy in layout.policies())
    prompts = _evaluated_prompts(experiment, "evaluation")
    each = config.evaluation.responses_per_prompt
    return prompts * steerings * each * len(layout.seed_of)


def _candidate_rows(experiment: Experiment, wildcards: dict[str, str]) -> float:
    work = _evaluation_sampling(experiment, wildcards | {"benchmark": "evaluation"})
    return work.sampled / experiment.sizes.sampled_response


#: Rules without a model whose rows are not those of the evaluation.
ROWS: dict[str, Callable[[Experiment, dict[str, str]], float]] = {
    "prepare_data": _raw_rows,
    "compute_conditions": _original_rows,
    "pair_ratings": _original_rows,
    "select_responses": _sampled_rows,
    "select_pairs": _sampled_rows,
    "reject_responses": _sampled_rows,
    "prepare_ric": _sampled_rows,
    "choose_samples_to_rate": _sampled_rows,
    "choose_best": _candidate_rows,
}

#: Rules with a model, and their work.
HEAVY: dict[str, Callable[[Experiment, dict[str, str]], Work]] = {
    "pretrain_base_model": _pretrain,
    "train_reward_model": _reward_model,
    "probe_reward_model": _reward_probe,
    "average_reward_models": _reward_average,
    "train_judge": _judge,
    "evaluate_reward_model": _reward_model_evaluation,
    "annotate_responses": _annotation,
    "retrain_reward_model": _reward_model,
    "annotate_replay": _replay_annotation,
    "annotate_feedback": _annotating,
    "train_sft": _sft,
    "train_initial_policy": _steerlm(halves=1),
    "train_steerlm": _steerlm(halves=2),
    "sample_responses": _sampling,
    "score_responses": _scoring,
    "finetune_policy": _finetuning,
    "train_dpo": _dpo,
    "train_directional_dpo": _directional_dpo,
    "train_ric": _ric,
    "train_ppo": _ppo,
    "train_online_dpo": _online_dpo,
    "sample_evaluation": _evaluation_sampling,
    "sample_soup": _evaluation_sampling,
    "sample_candidates": _evaluation_sampling,
    "score_candidates": _candidate_scoring,
    "score_evaluation": _evaluation_scoring,
    "measure_divergence": _divergence,
    "judge_rewardbench": _rewardbench_judging,
    "score_rewardbench": _rewardbench_scoring,
}


# --- Data -----------------------------------------------------------------------------------------


def _sizes(config: Config, assumptions: Assumptions) -> Sizes:
    data = config.data
    text: Tokens | WorldTokens = assumptions.world if config.world else assumptions.tokens

    def look_up(source: SourceConfig) -> DataSet:
        return _data_set(source, config, assumptions)

    rated = [look_up(ratings.train) for ratings in data.ratings]
    held_out = [look_up(r.validation) for r in data.ratings if r.validation is not None]
    train = [look_up(source) for source in data.train_prompts]
    validation = sum(look_up(source).rows for source in data.validation_prompts)
    unseen = sum(look_up(source).rows for source in data.unseen_prompts)
    prompts = sum(d.rows for d in train)
    held_out_rated = sum(d.rows * d.responses for d in held_out)
    raw = sum(d.rows * d.responses for d in rated) + held_out_rated + prompts + validation + unseen
    half = min(prompts // 2, data.prompts_per_half or prompts)
    names = [ratings.name for ratings in data.ratings]
    originals = rated[names.index(data.original_responses)] if half else None
    demonstrations = data.sft if config.sft.path is None else []
    rating_sources = [s for r in data.ratings for s in (r.train, r.validation) if s]
    held_out_prompts = [*data.validation_prompts, *data.unseen_prompts]
    hub = [*data.train_prompts, *held_out_prompts, *demonstrations, *rating_sources]
    downloads = sum(look_up(source).bytes for source in hub if source.revision is not None)
    sft = [look_up(source) for source in demonstrations]
    documents = [look_up(s) for s in data.pretraining] if config.base_model.path is None else []
    return Sizes(
        rated=rated,
        held_out_rated=held_out_rated,
        raw=raw,
        half=half,
        validation=validation,
        unseen=unseen,
        prompt=_mean_prompt(train),
        response=originals.response_tokens if originals else 0,
        originals=originals.responses if originals else 0,
        sft=sft,
        documents=documents,
        downloads=downloads,
        system=text.system,
        instruction=text.reward_instruction,
        sampled_response=min(text.response, config.sampling.max_new_tokens),
    )


def _mean_prompt(sets: list[DataSet]) -> float:
    rows = sum(d.rows for d in sets)
    return sum(d.rows * d.prompt_tokens for d in sets) / rows if rows else 0


def _data_set(source: SourceConfig, config: Config, assumptions: Assumptions) -> DataSet:
    """Rows and lengths of a source: by the table, of the world to be made, or counted."""
    if source.revision is not None:
        splits = assumptions.data_sets.get(source.path, {})
        name, first = re.fullmatch(r"(.*?)(?:\[:(\d+)\])?", source.split or "").groups()  # type: ignore[union-attr]
        if name not in splits:
            raise InputError(
                f"{source.path}, split {source.split}: its size is not known offline; add it under "
                "`data_sets` in a file for --assumptions"
            )
        whole = splits[name]
        rows = min(int(first), whole.rows) if first else whole.rows
        return whole.model_copy(update={"rows": rows})
    if config.world is not None and "{experiment}" in source.path:
        return _world_set(source.path, config, assumptions)
    return _counted(source, assumptions)


def _world_set(path: str, config: Config, assumptions: Assumptions) -> DataSet:
    """A file of the world, which need not be there yet; by its name."""
    world, mean = config.world, assumptions.world
    assert world is not None
    name = path.split("data/raw/")[-1]
    rows, responses, document = {
        "helpsteer/train.jsonl": (world.helpsteer_rows, 1, False),
        # A tenth, at most what dpa.quickstart.world makes.
        "helpsteer/validation.jsonl": (max(1, world.helpsteer_rows // 10), 1, False),
        "ultrafeedback.jsonl": (world.ultrafeedback_prompts, 4, False),
        "ultrafeedback_binarized/train_prefs.jsonl": (world.ultrafeedback_prompts, 1, False),
        "ultrafeedback_binarized/test_prefs.jsonl": (world.validation_prompts, 1, False),
        "unseen_prompts.jsonl": (world.unseen_prompts, 1, False),
        "ultrachat.jsonl": (world.sft_rows, 1, False),
        "pretraining.jsonl": (world.pretraining_documents, 1, True),
    }[name]
    length = mean.document if document else mean.response
    return DataSet(
        rows=rows, responses=responses, prompt_tokens=mean.prompt, response_tokens=length, bytes=0
    )


def _counted(source: SourceConfig, assumptions: Assumptions) -> DataSet:
    """A local file: its rows, and the mean length of its first thousand."""
    from dpa.data.sources import read_rows

    if not Path(source.path).exists():
        raise InputError(f"{source.path}: no such file, so nothing of it can be counted")
    rows, seen, prompt, response = 0, 0, 0.0, 0.0
    for row in read_rows(source):
        rows += 1
        if rows <= 1000:
            seen += 1
            asked = row.get("prompt", row.get("instruction", ""))
            prompt += len(str(asked).encode())
            answers = row.get("completions") or row.get("messages") or row.get("response", "")
            response += len(str(answers).encode())
    per_token = assumptions.bytes.per_token
    responses = 4 if "completions" in row else 1
    return DataSet(
        rows=rows,
        responses=responses,
        prompt_tokens=prompt / seen / per_token,
        response_tokens=response / seen / per_token / responses,
        bytes=math.ceil(Path(source.path).stat().st_size) if Path(source.path).is_file() else 0,
    )
