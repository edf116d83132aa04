"""Find my direction, with simulated users: how far from what they mean it ends, on real samples.

    python -m benchmarks.find_direction --run results/quickstart --samples dpa-4

takes pairs of answers to the same prompt from a quickstart's evaluated samples. 200 users, whose
directions are drawn as those of training, click 20 times; one click in ten is wrong. They judge by
the reward model's rewards, and then by the world's gold scorer, of which the fit knows nothing.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from dpa.artefacts.jsonl import decode_lines
from dpa.directions import degrees_between, sample_direction
from dpa.quickstart.world import gold_rewards
from dpa.records import ScoredSample
from dpa.runtime.sections import default_section
from dpa.serving.fit_direction import DirectionPosterior
from dpa.text.prompts import read_prompts

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

USERS, PAIRS, CLICKS, WRONG = 200, 60, 20, 0.1


def find_user(
    distribution: dict, user: int, differences: np.ndarray, judged_by: np.ndarray
) -> tuple[float, float]:
    """How far simulated user number `user` is found from what they mean, and the interval: degrees.

    (pairs, objectives) `differences` are the reward model's; the user prefers by `judged_by`.
    """
    rng = np.random.default_rng(user)
    meant = np.array(sample_direction(distribution, user, 0, "user", 0))
    posterior = DirectionPosterior(distribution)
    left = list(range(len(differences)))
    for _ in range(CLICKS):
        pair = left.pop(int(posterior.information(differences[left]).argmax()))
        first = (judged_by[pair] @ meant > 0) != (rng.uniform() < WRONG)
        posterior.add_click(differences[pair] if first else -differences[pair])
    fit = posterior.fit()
    return degrees_between(fit.direction, meant), fit.degrees


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="Folder of a quickstart's run.")],
    samples: Annotated[str, typer.Option(help="An evaluated policy, as its file is named.")],
) -> None:
    """Find simulated users' directions."""
    texts = {p.prompt_id: p.prompt for p in read_prompts(run / "data/prompts/validation.jsonl")}
    answers: dict[str, list[tuple[list[float], tuple[float, float]]]] = {}
    for line in decode_lines(run / "evaluation/scored" / f"{samples}.jsonl", ScoredSample):
        gold = gold_rewards(str(texts[line.prompt_id]), line.response)
        answers.setdefault(line.prompt_id, []).append((line.rewards, gold))
    prompts = [np.array(found) for found in answers.values()]  # (answers, scorers, objectives)
    distribution = default_section("directions")
    found = {"the reward model": [], "gold": []}  # type: dict[str, list[tuple[float, float]]]
    for user in range(USERS):
        rng = np.random.default_rng([user, 1])
        pairs = np.array(
            [
                np.subtract(*rng.choice(prompts[place], 2, replace=False))
                for place in rng.integers(len(prompts), size=PAIRS)
            ]
        )
        for scorer, name in enumerate(found):
            found[name].append(find_user(distribution, user, pairs[:, 0], pairs[:, scorer]))
    print("| users judge by | within 5° | 90 % are within | interval covers | median interval |")
    print("|---|---:|---:|---:|---:|")
    for name, results in found.items():
        off, interval = np.array(results).T
        print(
            f"| {name} | {(off <= 5).mean():.0%} | {np.quantile(off, 0.9):.1f}° "
            f"| {(off <= interval).mean():.0%} | {np.median(interval):.1f}° |"
        )


if __name__ == "__main__":
    app()
