"""Whether an experiment's stages fit the stated GPU memory: its needs by rule, and the remedy."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from dpa.config.experiment import Config
from dpa.config.trainer import ScheduleConfig
from dpa.evaluation.divergence import DIVERGENCE_TOKENS
from dpa.plan.memory import likelihood_memory, sampling_memory, scoring_memory
from dpa.plan.work import Experiment
from dpa.training.memory import (
    FINETUNING,
    ONLINE_PAIRS,
    PAIRS,
    POLICY_GRADIENT,
    Held,
    Memory,
    Shape,
    recomputes,
    stage_memory,
)


class Need(NamedTuple):
    """What a rule's process needs of a GPU's `limit` GiB, and what to do where that is too much."""

    rule: str
    memory: Memory
    limit: float
    remedy: str

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.limit

    def __str__(self) -> str:
        return (
            f"{self.rule} needs {self.memory} of {self.limit:.0f} GiB: {self.remedy}"
            if not self.fits
            else f"{self.rule} needs {self.memory} of {self.limit:.0f} GiB"
        )


def needs(experiment: Experiment, rules: Iterable[str]) -> list[Need]:
    """The memory of each of the rules that has a model, in their order."""
    found = [NEEDS[rule](experiment, rule) for rule in dict.fromkeys(rules) if rule in NEEDS]
    return [need for several in found for need in several]


def training_processes(config: Config) -> int:
    return config.compute.training_processes * config.compute.training_nodes


class TrainingRule(NamedTuple):
    """A rule that trains: what model, how, and what it has on the GPU besides."""

    shape: Callable[[Experiment], Shape]
    schedule: Callable[[Config], ScheduleConfig]
    held: Held = FINETUNING


def recomputed(experiment: Experiment, rule: str) -> bool:
    """Whether a rule that trains recomputes activations, on GPUs of the plan's memory."""
    kept = _trained(experiment, rule, recompute=False)
    config = experiment.config
    return recomputes(config.trainer.gradient_checkpointing, kept, config.plan.gpu_memory_gb)


def _trained(experiment: Experiment, rule: str, recompute: bool) -> Memory:
    config, stage = experiment.config, STAGES[rule]
    return stage_memory(
        stage.shape(experiment),
        config.reward_trainer if rule in REWARD_TRAININGS else config.trainer,
        stage.schedule(config),
        stage.held,
        processes=training_processes(config),
        recompute=recompute,
        reward=experiment.reward,
    )


def _training(experiment: Experiment, rule: str) -> list[Need]:
    memory = _trained(experiment, rule, recomputed(experiment, rule))
    if memory.parts["activations"] + memory.parts["loss"] > memory.total / 2:
        remedy = "lower trainer.per_device_batch_size or the stage's max_length"
    elif not STAGES[rule].held.sharded:
        method = rule.removeprefix("train_")
        remedy = f"its training is not sharded: set trainer.lora, or leave {method} out"
    else:
        remedy = (
            "set trainer.sharding to fsdp, raise compute.training_processes, set trainer.lora, or "
            "train on larger GPUs"
        )
    return [Need(rule, memory, experiment.config.plan.gpu_memory_gb, remedy)]


def _sampling(experiment: Experiment, rule: str) -> list[Need]:
    sampling = experiment.config.sampling
    limit = experiment.config.plan.gpu_memory_gb
    longest = sampling.max_prompt_tokens + sampling.max_new_tokens
    if sampling.engine == "vllm":
        memory = sampling_memory(experiment.policy, longest=longest)
        limit *= experiment.assumptions.engine.memory_share
    else:
        rows = sampling.rows_per_batch
        memory = scoring_memory(experiment.policy, tokens=longest * rows)
    remedy = "lower sampling.max_prompt_tokens, max_new_tokens or rows_per_batch"
    return [Need(rule, memory, limit, remedy)]


def _divergence(experiment: Experiment, rule: str) -> list[Need]:
    config = experiment.config
    longest = config.sampling.max_new_tokens
    memory = likelihood_memory(experiment.policy, tokens=DIVERGENCE_TOKENS, longest=longest)
    return [Need(rule, memory, config.plan.gpu_memory_gb, "lower sampling.max_new_tokens")]


def _scoring(experiment: Experiment, rule: str) -> list[Need]:
    return [_scoring_need(experiment, rule, experiment.reward)]


def _any_scoring(experiment: Experiment, rule: str) -> list[Need]:
    """By the reward model or the judge: the larger one."""
    shapes = experiment.reward, experiment.judge
    return [_scoring_need(experiment, rule, max(shapes, key=lambda shape: shape.parameters))]


def _scoring_need(experiment: Experiment, rule: str, shape: Shape) -> Need:
    config = experiment.config
    memory = scoring_memory(shape, tokens=config.reward_model.tokens_per_batch)
    remedy = "lower reward_model.tokens_per_batch"
    return Need(rule, memory, config.plan.gpu_memory_gb, remedy)


def _policy(experiment: Experiment) -> Shape:
    return experiment.policy


def _base(experiment: Experiment) -> Shape:
    return experiment.base


#: Rules that train a reward model, with its own trainer.
REWARD_TRAININGS = ("train_reward_model", "retrain_reward_model", "train_judge")
#: Rules that train.
STAGES = {
    "pretrain_base_model": TrainingRule(_base, lambda c: c.base_model.scratch.schedule),
    "train_reward_model": TrainingRule(_base, lambda c: c.reward_model.schedule),
    "retrain_reward_model": TrainingRule(_base, lambda c: c.reward_model.schedule),
    "train_judge": TrainingRule(_base, lambda c: c.reward_model.schedule),
    "train_sft": TrainingRule(_policy, lambda c: c.sft.schedule),
    "train_initial_policy": TrainingRule(_policy, lambda c: c.steerlm.schedule),
    "train_steerlm": TrainingRule(_policy, lambda c: c.steerlm.schedule),
    "finetune_policy": TrainingRule(_policy, lambda c: c.dpa.schedule),
    "train_dpo": TrainingRule(_policy, lambda c: c.dpo.recipes[c.dpo.recipe].schedule, PAIRS),
    "train_directional_dpo": TrainingRule(_policy, lambda c: c.directional_dpo.schedule, PAIRS),
    "train_ric": TrainingRule(_policy, lambda c: c.ric.schedule),
    "train_ppo": TrainingRule(_policy, lambda c: c.ppo.schedule, POLICY_GRADIENT),
    "train_online_dpo": TrainingRule(_policy, lambda c: c.online_dpo.schedule, ONLINE_PAIRS),
}
NEEDS: dict[str, Callable[[Experiment, str], list[Need]]] = {
    **dict.fromkeys(STAGES, _training),
    "sample_responses": _sampling,
    "score_responses": _scoring,
    "annotate_responses": _scoring,
    "annotate_replay": _scoring,
    "evaluate_reward_model": _any_scoring,
    "probe_reward_model": _scoring,
    "sample_evaluation": _sampling,
    "sample_soup": _sampling,
    "sample_candidates": _sampling,
    "score_candidates": _scoring,
    "score_evaluation": _any_scoring,
    "measure_divergence": _divergence,
    "judge_rewardbench": _scoring,
    "score_rewardbench": _scoring,
}
