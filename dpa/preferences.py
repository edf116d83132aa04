"""Preference pairs from ratings, for the DPO baseline."""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from dpa.prompts import messages
from dpa.provenance import Losses
from dpa.records import Rating, decode_lines
from dpa.seeds import derive_seed


def preference_pairs(
    ratings: Path, dataset: str, prompt_ids: set[str], seed: int, losses: Losses
) -> Iterator[tuple[list[dict], str, str]]:
    """(prompt messages, chosen, rejected) for each prompt with two differently rated responses.

    Only the ratings of one data set count: those of different ones are not comparable.
    Chosen has the highest mean rating, rejected is a seeded choice among the lower ones (zephyr-7b-
    beta's recipe; ours: ties with the best are not eligible). Prompts without a pair are counted.
    """
    by_prompt: dict[str, list[Rating]] = {}
    for rating in decode_lines(ratings, Rating):
        if rating.dataset == dataset and rating.prompt_id in prompt_ids:
            by_prompt.setdefault(rating.prompt_id, []).append(rating)
    for prompt_id, responses in by_prompt.items():
        means = [fmean(r.attributes.values()) for r in responses]
        best = max(means)
        lower = [r for r, mean in zip(responses, means, strict=True) if mean < best]
        if not lower:
            losses.read += 1
            losses.drop("no two different ratings")
            continue
        chosen = responses[means.index(best)]
        rejected = lower[derive_seed(seed, "dpo-pair", prompt_id) % len(lower)]
        yield messages(chosen.prompt, None), chosen.response, rejected.response
