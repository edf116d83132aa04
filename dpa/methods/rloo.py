"""Online policy gradient at one direction: what stands in the paper's PPO row (section 3.2).

TRL's PPOTrainer, with its value model, ended with version 1.12, so this runs its maintained
RLOOTrainer: REINFORCE leave-one-out (Ahmadian et al., 2024, arXiv 2402.14740). A step samples k
responses y_1..y_k to each of its prompts x from the policy pi, and takes one optimiser step on

    loss = -mean_i min(rho_i A_i, clip(rho_i, 0.8, 1.2) A_i),    rho_i = pi(y_i|x) / pi_old(y_i|x)
    A_i  = R_i - mean_{j != i} R_j
    R_i  = v.r(x, y_i) / REWARD_SCALE - beta log(pi_old(y_i|x) / pi_ref(y_i|x))

with the policy it started from as pi_ref. What differs from PPO:

- The baseline is the mean reward of the prompt's other responses, not a learnt value, and there is
  no advantage estimate per token: the whole response is one action.
- The ratio rho is of whole responses, and as every batch is used for a single step, it is 1 where
  the gradient is taken: PPO's clipping is in the loss, but never acts. The loss itself is 0 but for
  rounding (the A_i of a prompt sum to 0), so look at reward and KL, not at the loss.

A response ends with one of the policy's own end tokens (those of its generation config, and its
tokenizer's), which is part of the action, or at max_new_tokens. A response that was truncated there
keeps the reward of what it said: evaluation rates such responses in the same way, and masking them
out would take away the gradient against rambling. The history says how many there were.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed
from trl import RLOOConfig, RLOOTrainer

from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.artefacts.sidecars import known_hash, write_sidecar
from dpa.config.sampling import SamplingConfig
from dpa.config.steering import ObjectiveConfig
from dpa.directions import check_direction, scalar_reward
from dpa.errors import InputError
from dpa.models import load_checkpoint_config, model_options
from dpa.objectives import objective_rewards
from dpa.records import Prompt
from dpa.reward.scorer import Scorer, named_scores
from dpa.runtime.log import log
from dpa.text.chat_template import ConversationError
from dpa.text.prompts import messages
from dpa.text.tokenization import ChatTokenizer
from dpa.training.history import StepHistory
from dpa.training.memory import POLICY_GRADIENT
from dpa.training.trainer import (
    Training,
    TrainingJob,
    load_policy,
    load_training_chat,
    lora_config,
    run_training,
    trainer_arguments,
)

ALGORITHM = "REINFORCE leave-one-out (trl.RLOOTrainer)"

#: Points (of 100) that count as a reward of 1: about the spread of a prompt's responses. It sets
#: the size of gradients before max_grad_norm clips them, and the unit of beta: one nat of KL costs
#: beta * REWARD_SCALE points.
REWARD_SCALE = 10.0

#: Of the history file. Means over the step's responses: `reward` is v.r in points, `kl` is the
#: log ratio to the reference per response in nats (empty when beta is 0, as no reference is run),
#: `response_tokens` counts the end token, `truncated` is the share truncated at max_new_tokens.
HISTORY_COLUMNS = ["step", "reward", "kl", "response_tokens", "truncated", "loss"]

#: A reward function as TRL calls it.
Reward = Callable[..., list[float | None]]


class PolicyGradientTrainer(RLOOTrainer):
    """TRL's trainer on prompts that dpa.text.tokenization made."""

    chat: ChatTokenizer

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict]:
        return [self.chat.prompt_ids(turns) for turns in prompts], None, {}

    def _send_telemetry(self) -> None:
        """Nothing here needs a network."""


class PolicyGradient(Training):
    """Training of a policy to maximise v.r on prompts; `history` is the CSV of its steps.

    The job's start is the policy to start from and to stay near. The schedule's batch_size counts
    responses and its epochs are passes over the prompts (of which a last, partial step is left
    out); its max_length is not used, as the sampling's max_prompt_tokens and max_new_tokens bound
    the sequences. The policy gets no system prompt: a direction that never changes says nothing.
    Longer prompts are dropped and counted in `row_counts`.

    Several processes keep a copy of the model each, and sample for themselves: other than in the
    other trainings, results depend on their number. The trainer's `sharding` is not used.

    Raises InputError when prompts or batch sizes do not fit, when the reward model's scores are not
    finite, and when the loss or its gradient stops being a number.
    """

    def __init__(
        self,
        job: TrainingJob,
        prompts: Iterable[Prompt],
        history: Path,
        *,
        direction: Sequence[float],
        objectives: Sequence[ObjectiveConfig],
        reward_model: Scorer,
        beta: float,
        responses_per_prompt: int,
        sampling: SamplingConfig,
    ):
        # TRL 1.16 generates with the trained model, which takes whole weights.
        self.job = replace(job, trainer=job.trainer.model_copy(update={"sharding": "none"}))
        self.direction, self.objectives = list(direction), objectives
        self.reward_model, self.sampling = reward_model, sampling
        self.beta, self.responses_per_prompt = beta, responses_per_prompt
        batch_size = job.schedule.batch_size
        check_direction(direction, len(objectives))
        check_batch(batch_size, responses_per_prompt)
        self.chat = load_training_chat(job)
        self.tokenizer = self.chat.tokenizer
        self.row_counts = RowCounts()
        longest = sampling.max_prompt_tokens
        self.prompts = fitting_prompts(
            prompts,
            lambda prompt: self.chat.prompt_ids(messages(prompt.prompt, None)),
            longest,
            self.row_counts,
        )
        check_dropped(self.row_counts, str(job.output))
        if len(self.prompts) * responses_per_prompt < batch_size:
            raise InputError(
                f"{job.output}: {len(self.prompts)} prompts ({self.row_counts}) with "
                f"{responses_per_prompt} responses each do not fill one batch of {batch_size}; "
                "lower the stage's batch_size"
            )
        needed = sampling.max_prompt_tokens + sampling.max_new_tokens
        check_positions(load_checkpoint_config(job.start), job.start.path, needed)
        log.info("%d prompts, %d responses per step", len(self.prompts), batch_size)
        self.history, self.steps = history, History()
        self.rows = ()  # prompts are among the inputs
        self.settings = {
            "direction": self.direction,
            "beta": beta,
            "responses_per_prompt": responses_per_prompt,
            "sampling": [sampling.temperature, sampling.max_new_tokens, sampling.max_prompt_tokens],
            "objectives": [objective.model_dump() for objective in objectives],
            "chat": self.chat.details(),
            "read": [known_hash(Path(item)) for item in job.inputs],
        }
        self.details = {
            "algorithm": ALGORITHM,
            "rows": len(self.prompts),
            "neutralised": self.chat.controls.log_escaped(),
            **self.chat.details(),
            "direction": self.direction,
            "beta": beta,
        }

    def make_trainer(self, folder: Path) -> PolicyGradientTrainer:
        job, sampling = self.job, self.sampling
        set_seed(job.seed % 2**32)
        model = load_policy(job.start, job.trainer)
        reward = make_reward(
            model, self.chat, self.prompts, self.direction, self.objectives, self.reward_model
        )
        trainer = PolicyGradientTrainer(
            model=model,
            reward_funcs=reward,
            args=RLOOConfig(
                **trainer_arguments(job, folder, POLICY_GRADIENT) | {"logging_steps": 1},
                beta=self.beta,
                num_generations=self.responses_per_prompt,
                max_completion_length=sampling.max_new_tokens,
                temperature=sampling.temperature,
                mask_truncated_completions=False,
                disable_dropout=True,  # it would put noise into the ratios
                # The reference is loaded by the trainer, by the model's name.
                model_init_kwargs=model_options(job.start),
            ),
            train_dataset=Dataset.from_list(
                [
                    {"prompt": messages(prompt.prompt, None), "number": number}
                    for number, prompt in enumerate(self.prompts)
                ]
            ),
            processing_class=self.tokenizer,
            peft_config=lora_config(job.trainer),
        )
        trainer.chat = self.chat
        return trainer

    def callback(self) -> "History":
        return self.steps

    def write_sidecars(self, folder: Path, trained: dict[str, Any]) -> None:
        batch_size = self.job.schedule.batch_size
        self.steps.rows = trained["history"]
        self.steps.write(self.history)
        steps = RowCounts.all_kept(len(self.steps.rows))
        write_sidecar(self.history, self.job.inputs, steps, algorithm=ALGORITHM)
        write_sidecar(
            self.job.output,
            self.job.inputs,
            self.row_counts,
            content=folder,
            steps=trained["steps"],
            responses=trained["steps"] * batch_size,
            response_tokens=self.steps.total("response_tokens", batch_size),
            truncated=self.steps.total("truncated", batch_size),
            **self.details,
        )


def train_policy_gradient(training: PolicyGradient) -> None:
    """run_training, with a message for how TRL fails when a step has left the policy with NaN."""
    try:
        run_training(training)
    except RuntimeError as error:
        if "probability tensor" not in str(error):  # torch.multinomial's
            raise
        raise InputError(
            "training diverged: the policy predicts NaN; lower the stage's learning_rate"
        ) from error
    training.reward_model.warn_if_constant(training.job.output)


def check_batch(batch_size: int, responses_per_prompt: int) -> None:
    """Raise InputError unless a batch is made of whole groups of at least two responses."""
    if responses_per_prompt < 2:
        raise InputError(
            f"responses_per_prompt {responses_per_prompt}: a response is compared with the others "
            "of its prompt; sample at least 2"
        )
    if batch_size % responses_per_prompt:
        raise InputError(
            f"batch_size {batch_size} is not a multiple of responses_per_prompt "
            f"{responses_per_prompt}; change one of them"
        )


def check_positions(config: Any, path: str, needed: int) -> None:
    """Raise InputError when the policy holds fewer than `needed` tokens."""
    held = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if held is not None and held < needed:
        raise InputError(
            f"{path}: holds {held} tokens, fewer than max_prompt_tokens + max_new_tokens = "
            f"{needed}; lower sampling.max_prompt_tokens or sampling.max_new_tokens"
        )


def fitting_prompts(
    prompts: Iterable[Prompt],
    prompt_ids: Callable[[Prompt], list[int]],
    max_prompt_tokens: int,
    row_counts: RowCounts,
) -> list[Prompt]:
    """The prompts of at most `max_prompt_tokens` tokens that the chat template takes.

    `prompt_ids` asks for one. The others are counted as dropped.
    """
    kept = []
    for prompt in prompts:
        row_counts.read += 1
        try:
            tokens = len(prompt_ids(prompt))
        except ConversationError as error:
            row_counts.drop(str(error))
            continue
        if tokens > max_prompt_tokens:
            row_counts.drop("prompt_too_long")
        else:
            kept.append(prompt)
    return kept


def make_reward(
    model: Any,
    chat: ChatTokenizer,
    prompts: Sequence[Prompt],
    direction: Sequence[float],
    objectives: Sequence[ObjectiveConfig],
    reward_model: Scorer,
) -> Reward:
    """The reward function: v.r / REWARD_SCALE of each response, rated as in evaluation.

    The reward model sees the prompt as users wrote it and the response's text, without the chat
    template's tokens and without the policy's end token.
    """
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())

    def reward(completion_ids: list[list[int]], number: list[int], **_: Any) -> list[float | None]:
        texts = [chat.decode([i for i in ids if i not in ends]) for ids in completion_ids]
        members: dict[int, list[int]] = {}
        for place, prompt in enumerate(number):
            members.setdefault(prompt, []).append(place)
        groups = [(prompts[n].prompt, [texts[i] for i in m]) for n, m in members.items()]
        rewards: list[float | None] = [None] * len(texts)
        for (n, places), scores in zip(
            members.items(), reward_model.score_chunk(groups), strict=True
        ):
            for place, row in zip(places, scores, strict=True):
                where = f"a response to prompt {prompts[n].prompt_id}"
                attributes = named_scores(reward_model.names, row, where)
                rated = objective_rewards(attributes, objectives)
                rewards[place] = scalar_reward(direction, rated) / REWARD_SCALE
        return rewards

    return reward


class History(StepHistory):
    """Progress lines about reward, KL and length; the rows of the history file."""

    columns = HISTORY_COLUMNS
    mark = "reward"

    def row(self, step: int, logs: dict[str, Any]) -> dict[str, Any]:
        tokens = logs["completions/mean_length"]
        values = [
            step,
            logs["reward"] * REWARD_SCALE,
            # TRL's KL is per token; beta weighs that of a response.
            logs["kl"] * tokens if "kl" in logs else None,
            tokens,
            logs["completions/clipped_ratio"],
            logs["loss"],
        ]
        return dict(zip(HISTORY_COLUMNS, values, strict=True))

    def note_of(self, row: dict[str, Any]) -> str:
        kl = "" if row["kl"] is None else f", KL {row['kl']:.3f}"
        return f", reward {row['reward']:.2f}{kl}, {row['response_tokens']:.0f} tokens"

    def total(self, column: str, batch_size: int) -> int:
        """Sum over all responses of a column that is a mean over each step's."""
        return round(sum(row[column] for row in self.rows) * batch_size)
