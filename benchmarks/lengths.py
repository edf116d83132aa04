"""Conversations whose lengths are those of real ones, for benchmarks.

Real texts where ../shared/data/gpt4_feedback is present (605 instructions, 57 models' responses to
each); elsewhere made-up texts with log-normal numbers of words, fitted to the real ones.
"""

from pathlib import Path

import numpy as np

GPT4_FEEDBACK = Path(__file__).parents[2] / "shared/data/gpt4_feedback/train.parquet"

#: Mean and standard deviation of the logarithm of the number of words in gpt4_feedback.
PROMPT_WORDS, RESPONSE_WORDS = (2.95, 0.81), (4.55, 1.25)
#: The longest response there has some 2,900 words; a log-normal one could have any number.
MOST_WORDS = 3000

#: A prompt and responses to it.
Conversation = tuple[str, list[str]]


def source() -> str:
    """Where the lengths come from, for the notes of a measurement."""
    if GPT4_FEEDBACK.exists():
        return "real texts of gpt4_feedback"
    return (
        f"made-up texts with log-normal numbers of words (mu {PROMPT_WORDS[0]}, sigma "
        f"{PROMPT_WORDS[1]} for prompts; mu {RESPONSE_WORDS[0]}, sigma {RESPONSE_WORDS[1]} for "
        "responses)"
    )


def conversations(
    prompts: int, responses_per_prompt: int, seed: int = 0, made_up: bool = False
) -> list[Conversation]:
    """Seeded conversations; of the real ones, prompts come again when there are too few.

    `made_up` asks for log-normal lengths even where the real texts are present.
    """
    random = np.random.default_rng(seed)
    if GPT4_FEEDBACK.exists() and not made_up:
        return _real(prompts, responses_per_prompt, random)
    words = vocabulary(random)
    return [
        (
            text(words, _length(random, *PROMPT_WORDS), random),
            [
                text(words, _length(random, *RESPONSE_WORDS), random)
                for _ in range(responses_per_prompt)
            ],
        )
        for _ in range(prompts)
    ]


def fixed(
    prompts: int, responses_per_prompt: int, prompt_words: int, response_words: int, seed: int = 0
) -> list[Conversation]:
    """Made-up conversations of the same length all."""
    random = np.random.default_rng(seed)
    words = vocabulary(random)
    return [
        (
            text(words, prompt_words, random),
            [text(words, response_words, random) for _ in range(responses_per_prompt)],
        )
        for _ in range(prompts)
    ]


def vocabulary(random: np.random.Generator, size: int = 2000) -> np.ndarray:
    """Made-up words of two to nine letters."""
    letters = np.array(list("etaoinshrdlu"))
    return np.array(["".join(random.choice(letters, k)) for k in random.integers(2, 10, size)])


def text(words: np.ndarray, length: int, random: np.random.Generator) -> str:
    """A text of this many words."""
    return " ".join(random.choice(words, length))


def _length(random: np.random.Generator, mean: float, deviation: float) -> int:
    return min(MOST_WORDS, max(1, round(random.lognormal(mean, deviation))))


def _real(prompts: int, responses: int, random: np.random.Generator) -> list[Conversation]:
    import pandas as pd

    table = pd.read_parquet(GPT4_FEEDBACK, columns=["instruction", "output"])
    groups = [(str(prompt), rows.tolist()) for prompt, rows in table.groupby("instruction").output]
    order = [random.permutation(len(groups)) for _ in range(-(-prompts // len(groups)))]
    found = []
    for number in np.concatenate(order)[:prompts]:
        prompt, outputs = groups[number]
        places = random.choice(len(outputs), responses, replace=responses > len(outputs))
        found.append((prompt, [outputs[place] for place in places]))
    return found
