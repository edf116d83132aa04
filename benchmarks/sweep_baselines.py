"""The small sweep by which the quickstart's baselines got their learning rates and lengths.

    python -m benchmarks.sweep_baselines dpo --clone /path/to/clone

`--clone` is a clone with a finished run of quickstart-comparison, `seed=[0]`. Every setting gets a
copy of it in which Snakemake remakes what the setting changes, and nothing else; the clone itself
is left alone. Prints one Markdown row per setting: mean v·r over the evaluated directions on the
validation prompts, by the reward model (what is chosen by) and by gold, and the seconds it took.
Methods with iterations are judged after their first, whose samples all settings share.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.harness import nested
from dpa.config.experiment import Config
from dpa.config.load import load_config
from dpa.directions import evaluation_directions
from dpa.evaluation.validation import front, mean_scalar_reward, read_validation_rewards
from dpa.registry import METHODS
from dpa.runtime.cli import make_app, run_app

EXPERIMENT, SEED = "quickstart-comparison", 0
#: Method -> (where its schedule stands, what else is fixed, its settings).
SWEEPS: dict[str, tuple[str, dict[str, Any], list[dict[str, float]]]] = {
    "steerlm": (
        "steerlm.schedule",
        {},
        [
            {"learning_rate": 2.5e-3, "epochs": 8},
            {"learning_rate": 5e-3, "epochs": 4},
            {"learning_rate": 5e-3, "epochs": 8},
            {"learning_rate": 5e-3, "epochs": 16},
            {"learning_rate": 1e-2, "epochs": 8},
        ],
    ),
    "dpo": (
        "dpo.recipes.quickstart.schedule",
        {},
        [
            {"learning_rate": 2.5e-4, "epochs": 3},
            {"learning_rate": 5e-4, "epochs": 1},
            {"learning_rate": 5e-4, "epochs": 3},
            {"learning_rate": 5e-4, "epochs": 6},
            {"learning_rate": 1e-3, "epochs": 3},
        ],
    ),
    "rsf": (
        "rsf.schedule",
        {"rsf.iterations": 1},
        [
            {"learning_rate": 2.5e-3, "epochs": 8},
            {"learning_rate": 5e-3, "epochs": 4},
            {"learning_rate": 5e-3, "epochs": 8},
            {"learning_rate": 5e-3, "epochs": 16},
            {"learning_rate": 1e-2, "epochs": 8},
        ],
    ),
    "reward_soup": (
        "rsf.schedule",
        {"reward_soup.iterations": 1},
        [
            {"learning_rate": 2.5e-3, "epochs": 8},
            {"learning_rate": 5e-3, "epochs": 4},
            {"learning_rate": 5e-3, "epochs": 8},
            {"learning_rate": 1e-2, "epochs": 8},
        ],
    ),
    "ppo": (
        "ppo.schedule",
        {},
        [
            {"learning_rate": 5e-4, "epochs": 4},
            {"learning_rate": 1e-3, "epochs": 2},
            {"learning_rate": 1e-3, "epochs": 4},
            {"learning_rate": 1e-3, "epochs": 8},
            {"learning_rate": 2e-3, "epochs": 4},
        ],
    ),
    "directional_dpo": (
        "directional_dpo.schedule",
        {"directional_dpo.iterations": 1},
        [
            {"learning_rate": 1e-4, "epochs": 1},
            {"learning_rate": 2e-4, "epochs": 1},
            {"learning_rate": 2e-4, "epochs": 3},
            {"learning_rate": 5e-4, "epochs": 1},
            {"learning_rate": 1e-3, "epochs": 1},
        ],
    ),
    "ric": (
        "ric.schedule",
        {"ric.iterations": 1},
        [
            {"learning_rate": 5e-4, "epochs": 1},
            {"learning_rate": 1e-3, "epochs": 0.5},
            {"learning_rate": 1e-3, "epochs": 1},
            {"learning_rate": 1e-3, "epochs": 2},
            {"learning_rate": 1e-3, "epochs": 4},
            {"learning_rate": 2.5e-3, "epochs": 1},
        ],
    ),
    "online_dpo": (
        "online_dpo.schedule",
        {},
        [
            {"learning_rate": 1e-4, "epochs": 80},
            {"learning_rate": 2e-4, "epochs": 80},
            {"learning_rate": 5e-4, "epochs": 20},
            {"learning_rate": 5e-4, "epochs": 80},
            {"learning_rate": 1e-3, "epochs": 80},
        ],
    ),
}

app = make_app()


@app.command()
def main(
    method: Annotated[str, typer.Argument(help=f"One of {', '.join(SWEEPS)}.")],
    clone: Annotated[Path, typer.Option(help="Clone with a finished run.")],
) -> None:
    """Try a method's settings, one after the other."""
    schedule, fixed, settings = SWEEPS[method]
    print("| method | learning rate | epochs | mean v·r | mean v·r (gold) | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for setting in settings:
        overlay: dict[str, Any] = {"seed": [SEED], "methods": [method]}
        for key, value in {schedule: setting, **fixed}.items():
            overlay |= nested(overlay, key, value)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            rewards = remake(clone, Path(scratch) / "clone", method, overlay)
        lr, epochs = setting["learning_rate"], setting["epochs"]
        print(
            f"| {method} | {lr:g} | {epochs:g} | {rewards['r']:.1f} | {rewards['gold']:.1f} "
            f"| {time.monotonic() - start:.0f} |",
            flush=True,
        )


def remake(clone: Path, copy: Path, method: str, overlay: dict[str, Any]) -> dict[str, float]:
    """Mean v·r of the method's last iteration under the overlay, by reward model and gold."""
    # Locks: another run may be at work in the clone.
    left_out = shutil.ignore_patterns(".venv", ".git", "locks")
    shutil.copytree(clone, copy, symlinks=True, ignore=left_out)
    table = f"results/{EXPERIMENT}/seed{SEED}/evaluation/validation_rewards.csv"
    flags = [f"experiment={EXPERIMENT}", *(f"{k}={json.dumps(v)}" for k, v in overlay.items())]
    command = [sys.executable, "-m", "snakemake", "--cores", "1", table, "--config", *flags]
    result = subprocess.run(command, cwd=copy, text=True, capture_output=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    return mean_rewards(copy / table, method, load_config({"experiment": EXPERIMENT, **overlay}))


def mean_rewards(table: Path, method: str, cfg: Config) -> dict[str, float]:
    """Mean v·r over the evaluated directions, by scorer."""
    rows = read_validation_rewards(table)
    directions = evaluation_directions(cfg.directions.model_dump(), cfg.evaluation.directions)
    names = [objective.name for objective in cfg.objectives]
    entry = METHODS[method]
    last = rows.loc[rows["method"] == method, "iteration"].max()
    iteration = int(last) if entry.is_evaluated_by_iteration else None
    return {
        by: mean_scalar_reward(
            front(rows, method, iteration, names, by), directions, entry.is_steered
        )
        for by in ("r", "gold")
    }


if __name__ == "__main__":
    run_app(app)
