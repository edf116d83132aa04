"""Prompt texts: identity, system prompts that carry a direction or a condition, reward-model input.

Every template of the pipeline is written here, once.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from dpa.artefacts.jsonl import decode_lines
from dpa.errors import InputError
from dpa.records import Prompt, Turn

Conversation = str | list[Turn]

#: The released models' system prompt (published model cards).
SYSTEM_SENTENCE = (
    "You are a helpful, respectful, and honest assistant who always responds to the user in a "
    "harmless way."
)
DIRECTION_SENTENCE = "Your response should maximize weighted rating ="
#: SteerLM's condition (ours: the paper gives no wording).
CONDITION_SENTENCE = "Your response should have rating"

#: The released reward model's input, split around the two texts that vary (published model card).
REWARD_INSTRUCTION = (
    "[INST] You must read the following conversation carefully and rate the assistant's response "
    "from score 0-100 in these aspects: helpfulness, correctness, coherence, honesty, complexity, "
    "verbosity\n\n"
)
REWARD_SUFFIX = " [/INST]"
#: What marks instructions and roles in it; texts must not contain them (dpa.text.control_tokens).
REWARD_CONTROLS = ("[INST]", "[/INST]", "\n\nSystem:", "\n\nUser:", "\n\nAssistant:")


def normalise(prompt: Conversation) -> str:
    """The text that identifies a prompt: NFC, white space folded, roles kept for chat turns."""
    text = (
        prompt
        if isinstance(prompt, str)
        else "\n".join(f"{turn.role}: {turn.content}" for turn in prompt)
    )
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()


def prompt_id(prompt: Conversation) -> str:
    """Hash of the normalised prompt, 16 hexadecimal digits."""
    return hashlib.sha256(normalise(prompt).encode()).hexdigest()[:16]


def direction_system_prompt(names: Sequence[str], direction: Sequence[float]) -> str:
    """The system prompt that asks for a direction: weights in whole hundredths (published).

    >>> direction_system_prompt(["helpfulness", "verbosity"], [0.8, -0.6])[-59:]
    'maximize weighted rating = helpfulness*80 + verbosity*-60'
    """
    _check_width(names, direction, "direction", "weights; correct directions or objectives")
    terms = (f"{n}*{round(100 * v)}" for n, v in zip(names, direction, strict=True))
    return f"{SYSTEM_SENTENCE} {DIRECTION_SENTENCE} {' + '.join(terms)}"


def parse_direction(names: Sequence[str], system_prompt: str) -> list[float]:
    """The weights in a direction system prompt, in hundredths; inverse up to rounding."""
    pattern = r" \+ ".join(rf"{re.escape(name)}\*(-?\d+)" for name in names)
    match = re.search(rf"{re.escape(DIRECTION_SENTENCE)} {pattern}$", system_prompt)
    if match is None:
        raise InputError(
            f"system prompt carries no direction over {list(names)}: {system_prompt!r}"
        )
    return [int(weight) / 100 for weight in match.groups()]


def condition_system_prompt(names: Sequence[str], condition: Sequence[int]) -> str:
    """The system prompt that asks SteerLM for the given ratings (whole numbers, 0..100)."""
    _check_width(names, condition, "condition", "ratings; rerun compute_conditions")
    terms = (f"{n}={r}" for n, r in zip(names, condition, strict=True))
    return f"{SYSTEM_SENTENCE} {CONDITION_SENTENCE} {', '.join(terms)}"


def _check_width(names: Sequence[str], values: Sequence[float], what: str, rest: str) -> None:
    if len(values) != len(names):
        kind, _, remedy = rest.partition("; ")
        raise InputError(
            f"{what} {list(values)} has {len(values)} {kind}, but there are {len(names)} "
            f"objectives ({', '.join(names)}); {remedy}"
        )


def messages(prompt: Conversation, system: str | None, response: str | None = None) -> list[dict]:
    """Chat messages of a prompt, with an optional system prompt before and response after.

    Where the prompt begins with a system turn of the user's own, that text takes the place of
    SYSTEM_SENTENCE in front of the sentence that steers.
    """
    turns = (
        [{"role": "user", "content": prompt}]
        if isinstance(prompt, str)
        else [{"role": turn.role, "content": turn.content} for turn in prompt]
    )
    if system is not None:
        if turns and turns[0]["role"] == "system":
            own = turns.pop(0)["content"]
            steering = system.removeprefix(SYSTEM_SENTENCE).lstrip()
            system = f"{own} {steering}" if own else steering
        turns.insert(0, {"role": "system", "content": system})
    if response is not None:
        turns.append({"role": "assistant", "content": response})
    return turns


def reward_prefix(prompt: Conversation) -> str:
    """The reward model's input up to the response. Earlier turns follow the same pattern (ours)."""
    turns = [Turn("user", prompt)] if isinstance(prompt, str) else prompt
    lines = "".join(f"{turn.role.capitalize()}: {turn.content}\n\n" for turn in turns)
    return f"{REWARD_INSTRUCTION}{lines}Assistant: "


def reward_input(prompt: Conversation, response: str) -> str:
    """The whole text that the reward model rates (published)."""
    return f"{reward_prefix(prompt)}{response}{REWARD_SUFFIX}"


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file, at least one. Raises InputError when one is there twice."""
    lines: dict[str, int] = {}
    prompts = []
    for number, prompt in enumerate(decode_lines(path, Prompt), 1):
        first = lines.setdefault(prompt.prompt_id, number)
        if first != number:
            raise InputError(
                f"{path}:{number}: prompt {prompt.prompt_id} is there already, in line {first}; "
                "leave one of them out"
            )
        prompts.append(prompt)
    if not prompts:
        raise InputError(f"{path}: no prompts; give data.train_prompts and data.validation_prompts")
    return prompts
