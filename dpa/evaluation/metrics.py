"""Numbers that compare fronts: mean v.r, hypervolume, rank correlations. No torch.

Points are mean rewards, (n, k). Directions with a negative weight ask for less of an objective.
"""

from collections import Counter

import numpy as np

#: A response is very short below this number of words, and repetitive where more than this share of
#: its runs of four words have stood in it before.
SHORT_WORDS, REPEATED_SHARE, RUN = 3, 0.5, 4


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Share (percent) of the box between the reference corner and the ideal that points dominate.

    Rewards are on 0..100. The reference is the worst corner: an objective with reference 0 is
    maximised and one with reference 100 minimised; values in between bound the box.
    """
    import moocore

    maximise = reference < 50
    ideal = np.where(maximise, 100.0, 0.0)
    sides = np.abs(ideal - reference)
    gains = np.clip(np.where(maximise, points - reference, reference - points) / sides, 0, 1)
    return 100 * float(moocore.hypervolume(gains, ref=np.zeros(len(reference)), maximise=True))


def best_scalar_rewards(points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(m,) for each of m directions the highest v.r among a method's points.

    For a method that cannot be steered this is its one point; for SteerLM it is the most favourable
    of its curve, to its advantage.
    """
    return (directions @ points.T).max(axis=1)


def steered_scalar_rewards(points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(m,) v.r of the point obtained when direction v was asked for; row i belongs to row i."""
    return (points * directions).sum(axis=1)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def is_degenerate(response: str) -> bool:
    """Whether a response is very short or repetitive."""
    words = response.split()
    if len(words) < SHORT_WORDS:
        return True
    runs = Counter(zip(*(words[i:] for i in range(RUN)), strict=False))
    total = runs.total()
    return total > 0 and 1 - len(runs) / total > REPEATED_SHARE
