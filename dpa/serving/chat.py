"""A conversation partner: a policy under a direction, with the rewards of what it says."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import cast

from dpa.directions import Direction
from dpa.errors import InputError
from dpa.generation.engine import Completion, Request, StreamingEngine
from dpa.generation.load import context_length, load_engine
from dpa.models import AnyModel, ModelRef
from dpa.objectives import objective_rewards
from dpa.reward.load import load_scorer
from dpa.reward.scorer import Scorer
from dpa.runtime.gpus import claim_gpus
from dpa.runtime.log import visible
from dpa.serving.steering import PolicySteering, read_steering
from dpa.text.chat_template import ConversationError
from dpa.text.prompts import direction_system_prompt, messages

#: Room for prompt and response, in tokens, of a policy that does not say how many it holds.
UNBOUNDED = 1 << 17
#: What stands for the bytes of a character that is not whole yet.
INCOMPLETE = "\ufffd"


def read_directed(policy: AnyModel) -> PolicySteering:
    """How a policy is steered. InputError unless it takes directions."""
    steering = read_steering(policy)
    if steering.takes != "direction":
        raise InputError(
            f"{ModelRef.of(policy).path}: takes ratings (SteerLM), no direction; choose a policy "
            "of dpa/iter1 or later"
        )
    return steering


def find_reward_model(policy: AnyModel) -> Path | None:
    """The reward model of the experiment that a policy belongs to, results/<experiment>/."""
    place = Path(ModelRef.of(policy).path)
    parents = place.resolve().parents if place.exists() else ()
    folders = (folder / "reward_model" / "model" for folder in parents)
    return next((folder for folder in folders if folder.is_dir()), None)


class Partner(ABC):
    """Whoever answers under a direction, and a reward model that judges it where there is one.

    Answers and scores are made one at a time, whatever the number of threads that ask.
    """

    def __init__(self, policy: AnyModel, judge_by: Path | None) -> None:
        self.steering = read_directed(policy)
        path = judge_by or find_reward_model(policy)
        self.judge: Scorer | None = None
        self.lock = Lock()
        if path is not None:
            objectives = self.steering.objectives
            self.judge = load_scorer(path, objectives=objectives, tokens_per_batch=4096)

    @abstractmethod
    def stream(self, prompt: str, direction: Direction) -> Generator[Completion, None, None]:
        """Yield an answer as far as it goes, and whole in the end.

        Raises InputError before the first piece when the prompt cannot be asked.
        """

    def rewards(self, prompt: str, response: str) -> list[float] | None:
        """A response's rewards, one per objective, on 0-100. None without a judge."""
        if self.judge is None:
            return None
        with self.lock:
            [[scores]] = self.judge.score_groups([(prompt, [response])])
        attributes = dict(zip(self.judge.names, scores.tolist(), strict=True))
        return objective_rewards(attributes, self.steering.objectives)


def pieces(completions: Iterable[Completion]) -> Iterator[tuple[str, Completion]]:
    """What each of an answer's completions adds to what was shown, control characters visible."""
    shown, completion = "", Completion("", "stop", 0)
    for completion in completions:
        text = completion.text.rstrip(INCOMPLETE)
        if text.startswith(shown):
            yield visible(text[len(shown) :]), completion
            shown = text
    if completion.text.startswith(shown):
        yield visible(completion.text[len(shown) :]), completion


class Chat(Partner):
    """A policy in this process."""

    def __init__(
        self,
        policy: AnyModel,
        judge_by: Path | None,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ):
        read_directed(policy)
        claim_gpus()
        holds = context_length(policy) or UNBOUNDED
        #: The longest prompt, in tokens, that leaves room for the longest response.
        self.room = holds - max_new_tokens
        if self.room < 1:
            raise InputError(
                f"--max-new-tokens {max_new_tokens}: {ModelRef.of(policy).path} holds {holds} "
                "tokens, prompt included; give less"
            )
        super().__init__(policy, judge_by)
        engine = load_engine(
            "transformers",
            policy,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            max_model_len=holds,
            rows_per_batch=1,
            models=self.steering.models,
        )
        self.engine = cast(StreamingEngine, engine)
        self.seed = seed

    def stream(self, prompt: str, direction: Direction) -> Generator[Completion, None, None]:
        system = direction_system_prompt(self.steering.names, direction)
        try:
            ids = self.engine.chat.prompt_ids(messages(prompt, system))
        except ConversationError as error:
            raise InputError(f"the prompt is {error}: {error.detail}") from None
        if len(ids) > self.room:
            raise InputError(
                f"the prompt has {len(ids)} tokens with its system prompt; the policy has room for "
                f"{self.room}; shorten it, or give a smaller --max-new-tokens"
            )
        with self.lock:
            seed, self.seed = self.seed, self.seed + 1
            yield from self.engine.stream(Request(ids, [seed]))

    def answer(self, prompt: str, direction: Direction) -> Iterator[str]:
        """Yield the policy's answer piece by piece, then direction, length and rewards below it.

        Raises InputError before the first piece when the prompt cannot be asked.
        """
        for piece, completion in pieces(self.stream(prompt, direction)):  # noqa: B007
            yield piece
        yield "\n" + "\n".join(self._facts(prompt, direction, completion))

    def _facts(self, prompt: str, direction: Direction, completion: Completion) -> Iterator[str]:
        """The lines below an answer."""
        names = self.steering.names
        weights = ", ".join(f"{n} {v:+.2f}" for n, v in zip(names, direction, strict=True))
        truncated = ", truncated" if completion.finish_reason == "length" else ""
        yield f"  direction: {weights}"
        words = len(completion.text.split())
        yield f"  length: {completion.tokens} tokens, {words} words{truncated}"
        rewards = self.rewards(prompt, completion.text)
        if rewards is None:
            yield "  rewards: no reward model found; give --judge-by"
            return
        listed = ", ".join(f"{n} {r:.1f}" for n, r in zip(names, rewards, strict=True))
        yield f"  rewards: {listed}"
