"""Preference pairs: from ratings, for DPO, and from a policy's samples, for directional DPO."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from dpa.artefacts.jsonl import decode_lines
from dpa.artefacts.row_counts import RowCounts
from dpa.methods.best_of_n import (
    Candidates,
    SelectionPlan,
    Truncated,
    best_of_n,
    candidates_by_direction,
)
from dpa.records import Pair, Rating
from dpa.seeds import derive_seed
from dpa.text.prompts import direction_system_prompt, messages, read_prompts

#: A judgement of its own beside those of single attributes, and one with known errors.
OVERALL_SCORE = "ultrafeedback-overall_score"
#: Rewards and ratings have fewer decimals than this.
MARGIN_DECIMALS = 6


def rating_pairs(
    ratings: Path, dataset: str, prompt_ids: set[str], seed: int, row_counts: RowCounts
) -> Iterator[Pair]:
    """A pair for each prompt with two differently rated responses.

    Only the ratings of one data set count: those of different ones are not comparable.
    Chosen has the highest mean rating, rejected is a seeded choice among the lower ones (zephyr-7b-
    beta's recipe; ours: ties with the best are not eligible). What is lower is decided by the means
    over the attributes that both responses have. Prompts without a pair are counted.
    """
    by_prompt: dict[str, list[Rating]] = {}
    for rating in decode_lines(ratings, Rating):
        if rating.dataset == dataset and rating.prompt_id in prompt_ids:
            by_prompt.setdefault(rating.prompt_id, []).append(rating)
    for prompt_id, responses in by_prompt.items():
        row_counts.read += 1
        for chosen in sorted(responses, key=_mean_rating, reverse=True):
            lower = [(r, gap) for r in responses if (gap := _rating_gap(chosen, r)) > 0]
            if lower:
                break
        else:
            row_counts.drop("no two different ratings")
            continue
        rejected, gap = lower[derive_seed(seed, "dpo-pair", prompt_id) % len(lower)]
        yield Pair(
            prompt_id=prompt_id,
            prompt=chosen.prompt,
            direction=None,
            chosen=chosen.response,
            rejected=rejected.response,
            margin=round(gap, MARGIN_DECIMALS),
        )
    unrated = len(prompt_ids - by_prompt.keys())
    row_counts.read += unrated
    row_counts.drop("no ratings", rows=unrated)


def _compared(rating: Rating) -> dict[str, float]:
    """The ratings of single attributes, which a mean is made of."""
    return {name: value for name, value in rating.attributes.items() if name != OVERALL_SCORE}


def _mean_rating(rating: Rating) -> float:
    return fmean(_compared(rating).values() or [-1.0])


def _rating_gap(one: Rating, other: Rating) -> float:
    """How much higher the one's mean is, over the attributes that both have; 0 without any."""
    mine, theirs = _compared(one), _compared(other)
    return fmean([mine[name] - theirs[name] for name in sorted(mine.keys() & theirs)] or [0.0])


def sampled_pairs(
    shards: Sequence[Path],
    prompts_file: Path,
    plan: SelectionPlan,
    row_counts: RowCounts,
    pair_counts: RowCounts,
    truncated: Truncated,
) -> Iterator[Pair]:
    """For each prompt and direction the best and the worst of its candidates by v.r, or by what
    several members make of it.

    Among equals the lowest sample index wins. Directions whose candidates are all equal give no
    pair; they are counted in `pair_counts`, prompts without candidates in `row_counts`, truncated
    candidates in `truncated`.
    """
    prompts = read_prompts(prompts_file)
    for candidates in candidates_by_direction(shards, prompts, plan, row_counts, truncated):
        pair_counts.read += 1
        pair = _pair(candidates)
        if pair is None:
            pair_counts.drop("candidates are equal")
        else:
            yield pair


def _pair(candidates: Candidates) -> Pair | None:
    prompt, direction, found, scores = candidates
    chosen = best_of_n(scores)
    rejected = best_of_n([-score for score in scores])
    gap = scores[chosen] - scores[rejected]
    margin = round(gap, MARGIN_DECIMALS)
    if margin <= 0:
        return None
    return Pair(
        prompt_id=prompt.prompt_id,
        prompt=prompt.prompt,
        direction=direction,
        chosen=found[chosen].sample.response,
        rejected=found[rejected].sample.response,
        margin=margin,
    )


def as_conversations(
    pairs: Iterable[Pair], names: Sequence[str]
) -> Iterator[tuple[list[dict], str, str]]:
    """(prompt messages, chosen, rejected); a pair's direction, if any, is in the system prompt."""
    for pair in pairs:
        system = pair.direction and direction_system_prompt(names, pair.direction)
        yield messages(pair.prompt, system or None), pair.chosen, pair.rejected
