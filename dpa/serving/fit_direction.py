"""The direction that somebody means, from which of two answers they like better.

A Bradley-Terry model (Bradley and Terry, 1952) of v over the directions that the policy was trained
on: the first of two answers is preferred with probability sigmoid(v . (r1 - r2) / s), r being the
reward model's rewards and s how many points of v . r somebody notices; a part of the clicks is
wrong whatever was asked (a lapse rate). v, s and the lapse rate have a posterior on a grid, so that
the interval allows for what is not known of s and of the lapses. The pair to ask about next is the
one whose answer tells most of v: the mutual information of the two (Lindley, 1956; as BALD of
Houlsby et al., 2011).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from dpa.artefacts.jsonl import read_jsonl
from dpa.config.steering import ObjectiveConfig
from dpa.directions import Direction, evaluation_directions, objectives_of
from dpa.errors import InputError
from dpa.objectives import objective_rewards
from dpa.records import Record, Turn
from dpa.reward.scorer import Scorer, named_scores

#: Points of v . r (on 0-100) that are noticed three times out of four, about. Equally likely.
NOTICED_POINTS = np.array([0.25, 1.0, 4.0, 16.0])
#: Shares of clicks that are wrong whatever was asked. Equally likely.
LAPSE_RATES = np.array([0.01, 0.05, 0.1, 0.2])
#: Directions on the grid: a quarter of a degree apart on the paper's arc, 1.4 on its wedge.
ARC_POINTS, SURFACE_POINTS = 181, 1000
#: Of the interval.
CREDIBILITY = 0.9

Text = Annotated[str, msgspec.Meta(min_length=1)]


class AnswerPair(Record):
    """A line of the comparisons: two answers, and which one was preferred; null: not asked yet."""

    prompt: Text | list[Turn]
    a: str
    b: str
    preferred: Literal["a", "b"] | None = None


class DirectionFit(NamedTuple):
    """Where somebody is: within `degrees` of `direction`, with a probability of 90 %."""

    direction: Direction
    degrees: float
    clicks: int

    @property
    def angle(self) -> float | None:
        """Degrees, where there are two objectives."""
        if len(self.direction) != 2:
            return None
        return math.degrees(math.atan2(self.direction[1], self.direction[0]))

    def __str__(self) -> str:
        after = f"after {self.clicks} click{'s' * (self.clicks != 1)}"
        if self.angle is not None:
            return f"you are at {self.angle:.0f}° ± {self.degrees:.0f}° {after}"
        listed = ", ".join(f"{weight:.2f}" for weight in self.direction)
        return f"you are at ({listed}) ± {self.degrees:.0f}° {after}"


class DirectionPosterior:
    """What clicks say about a direction, uniform over the `distribution` of training before them.

    Differences are rewards of one answer less those of the other, one per objective, on 0-100.
    Raises InputError for a distribution that has one direction only.
    """

    def __init__(self, distribution: dict) -> None:
        points = ARC_POINTS if objectives_of(distribution) == 2 else SURFACE_POINTS
        #: (directions, objectives)
        self.grid = np.array(evaluation_directions(distribution, points))
        if len(self.grid) < 2:
            raise InputError(f"directions: {distribution} has one direction: nothing to be found")
        shape = (len(self.grid), len(NOTICED_POINTS), len(LAPSE_RATES))
        #: (directions, noticed points, lapse rates)
        self.weights = np.full(shape, 1 / math.prod(shape))
        self.clicks = 0

    def add_click(self, difference: Sequence[float]) -> None:
        """Learn from a click; `difference` is the preferred answer's rewards less the other's."""
        [first] = self._first_is_better(np.array([difference]))
        self.weights *= LAPSE_RATES + (1 - 2 * LAPSE_RATES) * first[..., None]
        self.weights /= self.weights.sum()
        self.clicks += 1

    def fit(self) -> DirectionFit:
        """The mean direction, and the smallest circle around it with 90 % of the probability."""
        weights = self.weights.sum((1, 2))
        mean = weights @ self.grid
        mean /= np.linalg.norm(mean)
        degrees = np.degrees(np.arccos(np.clip(self.grid @ mean, -1, 1)))
        nearest = np.argsort(degrees, kind="stable")
        enough = int(np.searchsorted(weights[nearest].cumsum(), CREDIBILITY))
        within = degrees[nearest[min(enough, len(nearest) - 1)]]
        return DirectionFit([round(float(v), 6) for v in mean], float(within), self.clicks)

    def information(self, differences: np.ndarray) -> np.ndarray:
        """(pairs,) bits that a click is expected to tell of the direction, for each pair.

        `differences` is (pairs, objectives); which answer of a pair is the first does not matter.
        """
        first = self._first_is_better(differences)
        attentive = self.weights @ (1 - 2 * LAPSE_RATES)
        lapsed = (self.weights @ LAPSE_RATES).sum(1)
        joint = np.einsum("pds,ds->pd", first, attentive) + lapsed
        weights = self.weights.sum((1, 2))
        given = np.divide(joint, weights, out=np.full_like(joint, 0.5), where=weights > 0)
        return _entropy(joint.sum(1)) - _entropy(given) @ weights

    def _first_is_better(self, differences: np.ndarray) -> np.ndarray:
        """(pairs, directions, noticed points) probabilities without a lapse."""
        from scipy.special import expit

        return expit((differences @ self.grid.T)[..., None] / NOTICED_POINTS)


def _entropy(share: np.ndarray) -> np.ndarray:
    """Of a yes or no, in bits."""
    share = np.clip(share, 1e-12, 1 - 1e-12)
    return -share * np.log2(share) - (1 - share) * np.log2(1 - share)


def read_comparisons(path: Path) -> list[AnswerPair]:
    """The comparisons of a file. Raises InputError naming the line, and when there are none."""
    comparisons = read_jsonl(path, AnswerPair)
    if not comparisons:
        raise InputError(
            f'{path}: is empty; give lines {{"prompt": …, "a": …, "b": …, "preferred": "a"}}'
        )
    return comparisons


def reward_differences(
    comparisons: Sequence[AnswerPair], scorer: Scorer, objectives: Sequence[ObjectiveConfig]
) -> np.ndarray:
    """(comparisons, objectives): rewards of `a` less those of `b`."""

    groups = [(pair.prompt, [pair.a, pair.b]) for pair in comparisons]
    differences = []
    for number, scores in enumerate(scorer.score_groups(groups), 1):
        named = (named_scores(scorer.names, row, f"comparison {number}") for row in scores)
        a, b = (np.array(objective_rewards(attributes, objectives)) for attributes in named)
        differences.append(a - b)
    return np.array(differences)


def add_comparisons(
    posterior: DirectionPosterior, comparisons: Sequence[AnswerPair], differences: np.ndarray
) -> int | None:
    """Learn from what was judged; of what was not, which tells most: its place. None without."""
    for pair, difference in zip(comparisons, differences, strict=True):
        if pair.preferred is not None:
            posterior.add_click(difference if pair.preferred == "a" else -difference)
    left = [place for place, pair in enumerate(comparisons) if pair.preferred is None]
    return left[int(posterior.information(differences[left]).argmax())] if left else None
