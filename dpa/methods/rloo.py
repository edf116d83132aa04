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
tokenizer's), which is part of the action, or at max_new_tokens. A response that was cut there keeps
the reward of what it said: evaluation rates cut responses in the same way, and masking them out
would take away the gradient against rambling. The history says how many were cut.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from dpa.artefacts.files import content_hash, write_text
from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.steering import ObjectiveConfig
from dpa.config.trainer import ScheduleConfig, TrainerConfig
from dpa.directions import check_direction, scalar_reward
from dpa.errors import InputError
from dpa.models import load_checkpoint_config, model_options
from dpa.objectives import objective_rewards
from dpa.records import Prompt
from dpa.reward.scorer import Scorer, named_scores
from dpa.runtime.log import log
from dpa.text.control_tokens import chat_controls
from dpa.text.prompts import messages
from dpa.text.tokenization import prompt_ids
from dpa.training.checkpoints import training_fingerprint
from dpa.training.trainer import (
    ProgressCallback,
    load_policy,
    load_training_tokenizer,
    lora_config,
    save_trained_policy,
    train_and_save,
    trainer_arguments,
)

ALGORITHM = "REINFORCE leave-one-out (trl.RLOOTrainer)"

#: Points (of 100) that count as a reward of 1: about the spread of a prompt's responses. It sets
#: the size of gradients before max_grad_norm clips them, and the unit of beta: one nat of KL costs
#: beta * REWARD_SCALE points.
REWARD_SCALE = 10.0

#: Of the history file. Means over the step's responses: `reward` is v.r in points, `kl` is the
#: log ratio to the reference per response in nats (empty when beta is 0, as no reference is run),
#: `response_tokens` counts the end token, `truncated` is the share cut at max_new_tokens.
COLUMNS = ["step", "reward", "kl", "response_tokens", "truncated", "loss"]

#: A reward function as TRL calls it.
Reward = Callable[..., list[float | None]]


def train_policy_gradient(
    start: tuple[str, str | None],
    prompts: Iterable[Prompt],
    output: Path,
    training: TrainerConfig,
    schedule: ScheduleConfig,
    seed: int,
    *,
    direction: Sequence[float],
    objectives: Sequence[ObjectiveConfig],
    reward_model: Scorer,
    beta: float,
    responses_per_prompt: int,
    temperature: float,
    max_new_tokens: int,
    max_prompt_tokens: int,
    history: Path,
    losses: RowCounts,
    inputs: list[Path | str],
) -> None:
    """Train a policy to maximise v.r on the prompts, and save it with its history and sidecar.

    `start` is the (path, revision) of the policy to start from and to stay near. The schedule's
    batch_size counts responses and its epochs are passes over the prompts (of which a last, partial
    step is left out); its max_length is not used, as `max_prompt_tokens` and `max_new_tokens` bound
    the sequences. The policy gets no system prompt: a direction that never changes says nothing.
    Longer prompts are dropped and counted in `losses`.

    Several processes keep a copy of the model each, and sample for themselves: other than in the
    other trainings, results depend on their number. `training.sharding` is not used.

    Raises InputError when prompts or batch sizes do not fit, when the reward model's scores are not
    finite, and when the loss or its gradient stops being a number.
    """
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    class PolicyGradient(RLOOTrainer):
        def _send_telemetry(self) -> None:
            """Nothing here needs a network."""

        def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict]:
            return [prompt_ids(tokenizer, turns) for turns in prompts], None, {}

    # TRL 1.16 generates with the trained model, which takes whole weights.
    training = training.model_copy(update={"sharding": "none"})
    check_direction(direction, len(objectives))
    check_batch(schedule.batch_size, responses_per_prompt)
    tokenizer = load_training_tokenizer(*start)
    kept = fitting_prompts(prompts, tokenizer, max_prompt_tokens, losses)
    check_dropped(losses, str(output))
    if len(kept) * responses_per_prompt < schedule.batch_size:
        raise InputError(
            f"{output}: {len(kept)} prompts ({losses}) with {responses_per_prompt} responses each "
            f"do not fill one batch of {schedule.batch_size}; lower the stage's batch_size"
        )
    config = load_checkpoint_config(*start)
    check_positions(config, start[0], max_prompt_tokens + max_new_tokens)
    log.info("%d prompts, %d responses per step", len(kept), schedule.batch_size)
    progress = History()

    def make_trainer(folder: Path) -> Any:
        set_seed(seed % 2**32)
        model = load_policy(*start, training)
        arguments = trainer_arguments(training, schedule, seed, folder) | {"logging_steps": 1}
        return PolicyGradient(
            model=model,
            reward_funcs=make_reward(model, tokenizer, kept, direction, objectives, reward_model),
            args=RLOOConfig(
                **arguments,
                beta=beta,
                num_generations=responses_per_prompt,
                max_completion_length=max_new_tokens,
                temperature=temperature,
                mask_truncated_completions=False,
                disable_dropout=True,  # it would put noise into the ratios
                # The reference is loaded by the trainer, by the model's name.
                model_init_kwargs=model_options(*start),
            ),
            train_dataset=Dataset.from_list(
                [
                    {"prompt": messages(prompt.prompt, None), "number": number}
                    for number, prompt in enumerate(kept)
                ]
            ),
            processing_class=tokenizer,
            peft_config=lora_config(training),
        )

    def sidecars(folder: Path, trained: dict[str, Any]) -> None:
        progress.rows = trained["history"]
        progress.write(history)
        steps = RowCounts.none(len(progress.rows))
        write_sidecar(history, inputs, steps, algorithm=ALGORITHM)
        write_sidecar(
            output,
            inputs,
            losses,
            content=folder,
            steps=trained["steps"],
            algorithm=ALGORITHM,
            rows=len(kept),
            neutralised=chat_controls(tokenizer).log_neutralised(),
            direction=list(direction),
            beta=beta,
            responses=trained["steps"] * schedule.batch_size,
            response_tokens=progress.total("response_tokens", schedule.batch_size),
            truncated=progress.total("truncated", schedule.batch_size),
        )

    settings = [training.model_dump(), schedule.model_dump(), seed, list(direction), beta]
    settings += [responses_per_prompt, temperature, max_new_tokens, max_prompt_tokens]
    settings += [[o.model_dump() for o in objectives], [content_hash(Path(i)) for i in inputs]]
    try:
        train_and_save(
            output,
            lambda: training_fingerprint(start, (), *settings),
            make_trainer,
            lambda trainer, folder: save_trained_policy(trainer, tokenizer, training, folder),
            sidecars,
            progress,
        )
    except RuntimeError as error:
        # How torch.multinomial says that a step has left the policy with NaN.
        if "probability tensor" not in str(error):
            raise
        raise InputError(
            "training diverged: the policy predicts NaN; lower the stage's learning_rate"
        ) from error


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
    prompts: Iterable[Prompt], tokenizer: Any, max_prompt_tokens: int, losses: RowCounts
) -> list[Prompt]:
    """The prompts of at most `max_prompt_tokens` tokens; the others are counted as dropped."""
    kept = []
    for prompt in prompts:
        losses.read += 1
        if len(prompt_ids(tokenizer, messages(prompt.prompt, None))) > max_prompt_tokens:
            losses.drop("prompt_too_long")
        else:
            kept.append(prompt)
    return kept


def make_reward(
    model: Any,
    tokenizer: Any,
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
        texts = [
            tokenizer.decode([i for i in ids if i not in ends], skip_special_tokens=True)
            for ids in completion_ids
        ]
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


class History(ProgressCallback):
    """Progress lines about reward, KL and length; the rows of the history file."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        # Steps before a checkpoint that training goes on from.
        self.rows = [_history_row(e["step"], e) for e in state.log_history if "reward" in e]

    def on_log(self, args, state, control, logs=None, **kwargs):
        super().on_log(args, state, control, logs, **kwargs)
        if not logs or "reward" not in logs:
            return
        # The loss is 0 whatever happens: it is in its gradient that a divergence shows.
        if not math.isfinite(logs.get("grad_norm", 0.0)):
            raise InputError(
                f"training diverged: gradient norm {logs['grad_norm']} at step "
                f"{state.global_step}; lower the stage's learning_rate"
            )
        self.rows.append(_history_row(state.global_step, logs))

    def on_step_end(self, args, state, control, **kwargs):
        self.progress.advance(1, self._note())

    def _note(self) -> str:
        """About the last step that was logged: a step is logged after it has ended."""
        if not self.rows:
            return ""
        row = self.rows[-1]
        kl = "" if row["kl"] is None else f", KL {row['kl']:.3f}"
        return f", reward {row['reward']:.2f}{kl}, {row['response_tokens']:.0f} tokens"

    def summary(self) -> dict[str, Any]:
        return {"history": self.rows}

    def total(self, column: str, batch_size: int) -> int:
        """Sum over all responses of a column that is a mean over each step's."""
        return round(sum(row[column] for row in self.rows) * batch_size)

    def write(self, path: Path) -> None:
        """Write the history as CSV, numbers with six digits."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        write_text(path, text.getvalue())


def _history_row(step: int, logs: dict[str, Any]) -> dict[str, Any]:
    """A row of the history from what the trainer logs."""
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
    return dict(zip(COLUMNS, values, strict=True))
