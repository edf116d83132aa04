"""Directions outside of the trained arc, with and without neighbouring directions at equal budget.

    python -m benchmarks.neighbouring_directions results/variants/*/plain/results/quickstart/seed*

Each argument is the folder of a finished run of one seed. For a direction v its last DPA policy
answers every validation prompt five times: all under v, or once under each of v and its nearest
neighbours on both sides (as Robust Preference Selection does, arXiv 2510.20498: the nearest of a
grid). Of each five the best by v·r of the reward model is the answer. Prints mean v·r of the
answers, by the reward model that chose and by gold, means over runs ± standard errors. Samples and
scores are kept in the folder of --work, from where a killed run resumes.
"""

import re
from collections.abc import Container
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from benchmarks.compare_variants import mean_with_error
from dpa.artefacts.jsonl import decode_lines
from dpa.config.experiment import Config
from dpa.config.load import load_config
from dpa.directions import Direction, scalar_reward
from dpa.errors import InputError
from dpa.evaluation.validation import Gold, gold_scorer
from dpa.generation.sample import EVALUATION, Steering, always, sample_file
from dpa.records import Prompt, ScoredSample
from dpa.reward.score_samples import score_sample_file
from dpa.runtime.cli import make_app, run_app
from dpa.text.prompts import normalise

#: Neighbours of a direction, itself in the middle; as many responses has an answer.
NEIGHBOURS = 5

app = make_app()


@app.command()
def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, one for a seed.")],
    work: Annotated[Path, typer.Option(help="Where samples and scores are kept.")],
    experiment: Annotated[str, typer.Option(help="Of the runs.")] = "quickstart",
    degrees: Annotated[str, typer.Option(help="Directions, comma-separated.")] = (
        "-90,-67.5,22.5,45"
    ),
    step: Annotated[float, typer.Option(help="Degrees between neighbours.")] = 5.0,
) -> None:
    """Compare five answers under a direction with one under each of five neighbours."""
    config = load_config({"experiment": experiment})
    if len(config.objectives) != 2 or config.evaluation.gold is None:
        raise InputError(f"experiment {experiment}: needs two objectives and evaluation.gold")
    targets = [float(degree) for degree in degrees.split(",")]
    found = [
        row
        for i, run in enumerate(runs)
        for row in measured(run, work / str(i), config, targets, step)
    ]
    print(markdown_table(pd.DataFrame(found)))


def measured(
    run: Path, work: Path, config: Config, targets: list[float], step: float
) -> list[dict[str, float | str]]:
    """Mean v·r of a run's answers: a row per direction and way."""
    ways = {
        "own": [[target] for target in targets],
        "neighbours": [neighbours_of(target, step) for target in targets],
    }
    prompts = run / "data/prompts/validation.jsonl"
    texts = {p.prompt_id: p for p in decode_lines(prompts, Prompt)}
    gold = gold_scorer(config.evaluation.gold, config.objectives)
    assert gold is not None
    rows: list[dict[str, float | str]] = []
    for way, asked in ways.items():
        scored = scored_responses(run, work / f"{way}-{step:g}", prompts, config, asked)
        size = len(asked[0])
        for place, target in enumerate(targets):
            indices = range(place * size, (place + 1) * size)
            by_r, by_gold = answers(scored, indices, direction_at(target), texts, gold)
            rows.append({"degrees": target, "way": way, "r": by_r, "gold": by_gold})
    return rows


def direction_at(degrees: float) -> Direction:
    """The unit direction at an angle."""
    return [round(float(part(np.radians(degrees))), 6) for part in (np.cos, np.sin)]


def neighbours_of(target: float, step: float) -> list[float]:
    """NEIGHBOURS angles, `step` apart, around the target."""
    return [target + step * (i - NEIGHBOURS // 2) for i in range(NEIGHBOURS)]


def scored_responses(
    run: Path, folder: Path, prompts: Path, config: Config, asked: list[list[float]]
) -> list[ScoredSample]:
    """NEIGHBOURS responses to each prompt for each group of directions, group by group."""
    each = NEIGHBOURS // len(asked[0])
    angles = [angle for group in asked for angle in group]
    grid = [
        Steering(i, direction=direction_at(angle), samples=each) for i, angle in enumerate(angles)
    ]
    sampled, scored = folder / "sampled.jsonl", folder / "scored.jsonl"
    temperature = config.evaluation.temperature
    sample_file(
        sampled,
        policy=run / f"dpa/iter{config.dpa.iterations}/policy",
        prompts=prompts,
        steer=always(grid),
        names=[objective.name for objective in config.objectives],
        sampling=config.sampling.model_copy(update={"temperature": temperature}),
        models=config.models,
        seed=int(re.sub(r"\D", "", run.name) or 0),
        iteration=EVALUATION,
    )
    score_sample_file(
        run / "reward_model/model",
        sampled,
        prompts,
        config.objectives,
        scored,
        tokens_per_batch=config.reward_model.tokens_per_batch,
        attributes=config.reward_model.attributes,
    )
    return list(decode_lines(scored, ScoredSample))


def answers(
    scored: list[ScoredSample],
    indices: Container[int],
    direction: Direction,
    texts: dict[str, Prompt],
    gold: Gold,
) -> tuple[float, float]:
    """Mean v·r of the best of the responses of `indices` to each prompt: by who chose, and gold."""
    by_prompt: dict[str, list[ScoredSample]] = {}
    for sample in scored:
        if sample.direction_index in indices and not texts[sample.prompt_id].unseen:
            by_prompt.setdefault(sample.prompt_id, []).append(sample)
    pairs = []
    for prompt_id, group in by_prompt.items():
        best = max(group, key=lambda sample: scalar_reward(direction, sample.rewards))
        truth = gold(normalise(texts[prompt_id].prompt), best.response)
        pairs.append((scalar_reward(direction, best.rewards), scalar_reward(direction, truth)))
    by_chooser, by_gold = np.mean(pairs, axis=0).tolist()
    return by_chooser, by_gold


def markdown_table(found: pd.DataFrame) -> str:
    """A row per direction; the gain of neighbours is paired, run by run."""
    lines = [
        "| direction | reward model: own | neighbours | gold: own | neighbours | gain, gold |",
        "|---|---|---|---|---|---|",
    ]
    for target, rows in found.groupby("degrees", sort=False):
        own, near = (rows[rows["way"] == way].reset_index() for way in ("own", "neighbours"))
        gain = near["gold"] - own["gold"]
        cells = [
            mean_with_error(values)
            for values in (own["r"], near["r"], own["gold"], near["gold"], gain)
        ]
        lines.append(f"| {target:g}° | {' | '.join(cells)} |".replace("| -", "| −"))
    return "\n".join(lines)


if __name__ == "__main__":
    run_app(app)
