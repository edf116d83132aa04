"""A fine-tuning that lasts until it is stopped, with checkpoints on its way."""

import json
from pathlib import Path

from tests.support.tiny_models import make_causal_lm
from tests.support.training_jobs import question, sentence

#: As an experiment that extends the quickstart.
OVERLAY = """
extends: quickstart
base_model: {path: models/base}
data: {sft: [{path: demonstrations.jsonl}]}
trainer: {save_steps: 20}
sft: {schedule: {batch_size: 2, epochs: 200}}
"""
POLICY = Path("results/long/sft/policy")
LOG = Path("results/long/logs/train_sft.log")
#: The last line of a log whose training got a SIGTERM, with the step.
STOPPED = r"stopped by SIGTERM after step (\d+): run again to resume\n"


def add_long_training(folder: Path, overlay: str = "") -> None:
    """Add the experiment `long` to a clone."""
    (folder / "experiments/long.yaml").write_text(OVERLAY + overlay)
    (folder / "models").mkdir(exist_ok=True)
    make_causal_lm(folder / "models/base")
    with open(folder / "demonstrations.jsonl", "w") as file:
        for i in range(200):
            turns = {"user": question(i), "assistant": sentence(i)}
            messages = [{"role": role, "content": text} for role, text in turns.items()]
            file.write(json.dumps({"messages": messages}) + "\n")


def checkpoints(folder: Path) -> list[str]:
    """The names of its complete checkpoints."""
    complete = folder / f"{POLICY}.partial/complete"
    return complete.read_text().split() if complete.exists() else []
