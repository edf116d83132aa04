"""Whether an experiment's stages fit the stated GPU memory: its needs by rule, and the remedy."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from dpa.config.experiment import Config
from dpa.config.trainer import ScheduleConfig
from dpa.plan.assumptions import Shape
from dpa.plan.memory import Memory, sampling_memory, scoring_memory, training_memory
from dpa.plan.work import Experiment


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


def training_shards(config: Config, rule: str) -> int:
    """Processes among which a model's states are split. Policy gradients are not sharded."""
    sharded = config.trainer.sharding == "fsdp" and rule != "train_ppo"
    return training_processes(config) if sharded else 1


def _training(
    shape: Callable[[Experiment], Shape],
    schedule: Callable[[Config], ScheduleConfig],
    *,
    rows: int = 1,
    references: int = 0,
    rewarded: bool = False,
) -> Callable[[Experiment, str], list[Need]]:
    def need(experiment: Experiment, rule: str) -> list[Need]:
        config = experiment.config
        stage, shards = schedule(config), training_shards(config, rule)
        trainer = config.reward_trainer if rule == "train_reward_model" else config.trainer
        most = max(1, stage.batch_size // training_processes(config))
        per_device = min(trainer.per_device_batch_size, most)
        trained = shape(experiment).adapters(trainer.lora.rank) if trainer.lora else None
        memory = training_memory(
            shape(experiment),
            experiment.assumptions,
            tokens=per_device * rows * stage.max_length,
            shards=shards,
            recompute=trainer.gradient_checkpointing,
            trained=trained,
            references=references,
            reward=experiment.reward if rewarded else None,
        )
        if memory.parts["activations"] + memory.parts["loss"] > memory.total / 2:
            remedy = "lower trainer.per_device_batch_size or the stage's max_length"
        elif rule == "train_ppo":
            remedy = "policy gradients are not sharded: set trainer.lora, or leave ppo out"
        else:
            remedy = (
                "set trainer.sharding to fsdp, raise compute.training_processes, set "
                "trainer.lora, or train on larger GPUs"
            )
        return [Need(rule, memory, config.plan.gpu_memory_gb, remedy)]

    return need


def _sampling(experiment: Experiment, rule: str) -> list[Need]:
    sampling = experiment.config.sampling
    limit = experiment.config.plan.gpu_memory_gb
    longest = sampling.max_prompt_tokens + sampling.max_new_tokens
    if sampling.engine == "vllm":
        memory = sampling_memory(experiment.policy, experiment.assumptions, longest=longest)
        limit *= experiment.assumptions.engine.memory_share
    else:
        rows = sampling.rows_per_batch
        memory = scoring_memory(experiment.policy, experiment.assumptions, tokens=longest * rows)
    remedy = "lower sampling.max_prompt_tokens, max_new_tokens or rows_per_batch"
    return [Need(rule, memory, limit, remedy)]


def _scoring(experiment: Experiment, rule: str) -> list[Need]:
    config = experiment.config
    memory = scoring_memory(
        experiment.reward, experiment.assumptions, tokens=config.reward_model.tokens_per_batch
    )
    remedy = "lower reward_model.tokens_per_batch"
    return [Need(rule, memory, config.plan.gpu_memory_gb, remedy)]


def _evaluation(experiment: Experiment, rule: str) -> list[Need]:
    """One model after the other."""
    return [*_sampling(experiment, rule), *_scoring(experiment, rule)]


def _policy(experiment: Experiment) -> Shape:
    return experiment.policy


def _reward(experiment: Experiment) -> Shape:
    return experiment.reward


NEEDS: dict[str, Callable[[Experiment, str], list[Need]]] = {
    "pretrain_base_model": _training(_reward, lambda c: c.base_model.scratch.schedule),
    "train_reward_model": _training(_reward, lambda c: c.reward_model.schedule),
    "train_sft": _training(_policy, lambda c: c.sft.schedule),
    "train_initial_policy": _training(_policy, lambda c: c.steerlm.schedule),
    "train_steerlm": _training(_policy, lambda c: c.steerlm.schedule),
    "finetune_policy": _training(_policy, lambda c: c.dpa.schedule),
    # A pair is two rows.
    "train_dpo": _training(
        _policy, lambda c: c.dpo.recipes[c.dpo.recipe].schedule, rows=2, references=1
    ),
    "train_directional_dpo": _training(
        _policy, lambda c: c.directional_dpo.schedule, rows=2, references=1
    ),
    "train_ppo": _training(_policy, lambda c: c.ppo.schedule, references=1, rewarded=True),
    "sample_responses": _sampling,
    "score_responses": _scoring,
    "annotate_responses": _scoring,
    "evaluate_reward_model": _scoring,
    "evaluate_policy": _evaluation,
    "evaluate_soup": _evaluation,
    "sample_benchmark": _sampling,
    "judge_rewardbench": _scoring,
    "score_rewardbench": _scoring,
}
