"""Experiment trackers (Trackio, W&B, TensorBoard, MLflow, ...): those that transformers reports to.

They see a training and do not change it: what is tracked is no part of the configuration that a
result is known by.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpa.config.trainer import TrainerConfig
from dpa.errors import InputError
from dpa.runtime.run_environment import RunEnvironment

#: Where trackers put runs that their own settings (WANDB_PROJECT, ...) put nowhere else.
PROJECT = "dpa"


def check_tracker(name: str) -> None:
    """Raises InputError for a tracker that transformers does not know, or that does not start."""
    from transformers.integrations import get_reporting_integration_callbacks

    try:
        get_reporting_integration_callbacks([name])[0]()
    except Exception as error:  # each tracker's own
        reason = f"{' '.join(str(error).split()):.300}"
        raise InputError(
            f"trainer.report_to: {name}: {reason} Install it in this environment, or take it from "
            "the list"
        ) from None


def trackers_of(config: TrainerConfig) -> list[str]:
    """To whom a training reports: by its own settings, or by those of the run it is a job of."""
    return config.report_to or list(RunEnvironment.read().report_to)


def tracker_arguments(output: Path, trackers: Sequence[str]) -> dict[str, Any]:
    """A Trainer's arguments that name the trackers, and the run there."""
    if not trackers:
        return {"report_to": "none"}
    return {"report_to": list(trackers), "run_name": run_name(output), "project": PROJECT}


def tracker_environment(output: Path) -> dict[str, str]:
    """What trackers read from the environment alone; what is set there stays.

    TensorBoard's files are beside the model, or in a folder of their own in the one that is set:
    with the checkpoints, where they would be, they would go when the model is finished.
    """
    board = os.environ.get("TENSORBOARD_LOGGING_DIR")
    folder = Path(board, run_name(output)) if board else output.with_name("tensorboard")
    return {
        "WANDB_PROJECT": os.environ.get("WANDB_PROJECT", PROJECT),
        "MLFLOW_EXPERIMENT_NAME": os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        "TENSORBOARD_LOGGING_DIR": str(folder),
    }


def run_name(output: Path) -> str:
    """Experiment and stage, by where the model will lie: `quickstart/dpa/iter2`."""
    parts = output.absolute().parts
    below = parts[::-1].index("results") if "results" in parts else 2
    parts = parts[-below:]
    return "/".join(parts[:-1] if parts[-1] in ("policy", "model") else parts)
