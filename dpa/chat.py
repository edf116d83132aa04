"""A conversation partner: a policy under a direction, with the rewards of what it says."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dpa.artefacts.sidecars import read_sidecar, sidecar_path
from dpa.config.chat import ModelsConfig
from dpa.config.steering import ObjectiveConfig
from dpa.directions import Direction
from dpa.errors import InputError
from dpa.generation.engine import Engine, Request
from dpa.generation.load import load_engine
from dpa.objectives import objective_rewards
from dpa.reward.load import load_scorer
from dpa.reward.scorer import Scorer
from dpa.runtime.gpus import claim_gpus
from dpa.runtime.log import visible
from dpa.text.chat_template import ConversationError
from dpa.text.prompts import direction_system_prompt, messages

#: Room for the prompt, in tokens, within what the model holds.
MAX_PROMPT_TOKENS = 128


def policy_objectives(policy: Path) -> list[ObjectiveConfig]:
    """The objectives a policy was trained on, from its sidecar. InputError if it takes none."""
    found = read_sidecar(policy).get("objectives")
    if not found:
        raise InputError(
            f"{policy}: not trained on directions; choose a policy of dpa/iter1 or later"
        )
    try:
        return TypeAdapter(list[ObjectiveConfig]).validate_python(found)
    except ValidationError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{sidecar_path(policy)}: objectives: {reason}; make the policy again"
        ) from None


def _trained_with(policy: Path) -> ModelsConfig | None:
    """How a policy's conversations became tokens, from its sidecar."""
    found = read_sidecar(policy).get("models")
    return None if found is None else ModelsConfig.model_validate(found)


def find_reward_model(policy: Path) -> Path | None:
    """The reward model of the experiment that a policy belongs to, results/<experiment>/."""
    folders = (folder / "reward_model" / "model" for folder in policy.resolve().parents)
    return next((folder for folder in folders if folder.is_dir()), None)


class Chat:
    """A loaded policy, its objectives, and a reward model to judge it where there is one."""

    def __init__(
        self,
        policy: Path,
        reward_model: Path | None,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ):
        self.objectives = policy_objectives(policy)
        claim_gpus()
        self.engine: Engine = load_engine(
            "transformers",
            policy,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            max_model_len=MAX_PROMPT_TOKENS + max_new_tokens,
            rows_per_batch=1,
            models=_trained_with(policy),
        )
        self.judge = _load_judge(reward_model or find_reward_model(policy))
        self.seed = seed

    def answer(self, prompt: str, direction: Direction) -> str:
        """The policy's answer, and below it direction, length and rewards."""
        names = [objective.name for objective in self.objectives]
        system = direction_system_prompt(names, direction)
        try:
            ids = self.engine.chat.prompt_ids(messages(prompt, system))
        except ConversationError as error:
            raise InputError(f"the prompt is {error}: {error.detail}") from None
        if len(ids) > MAX_PROMPT_TOKENS:
            raise InputError(f"the prompt has {len(ids)} tokens; at most {MAX_PROMPT_TOKENS}")
        [[[completion]]] = self.engine.generate([[Request(ids, [self.seed])]])
        self.seed += 1
        weights = ", ".join(f"{n} {v:+.2f}" for n, v in zip(names, direction, strict=True))
        truncated = ", truncated" if completion.finish_reason == "length" else ""
        words = len(completion.text.split())
        lines = [
            visible(completion.text),
            f"  direction: {weights}",
            f"  length: {completion.tokens} tokens, {words} words{truncated}",
        ]
        if self.judge is None:
            lines.append("  rewards: no reward model found; give --reward-model")
        else:
            lines.append(f"  rewards: {self._rewards(prompt, completion.text, names)}")
        return "\n".join(lines)

    def _rewards(self, prompt: str, response: str, names: list[str]) -> str:
        assert self.judge is not None
        [[scores]] = self.judge.score_groups([(prompt, [response])])
        attributes = dict(zip(self.judge.names, scores.tolist(), strict=True))
        rewards = objective_rewards(attributes, self.objectives)
        return ", ".join(f"{n} {r:.1f}" for n, r in zip(names, rewards, strict=True))


def _load_judge(path: Path | None) -> Scorer | None:
    return None if path is None else load_scorer(path, tokens_per_batch=4096)
