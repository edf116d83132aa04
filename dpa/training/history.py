"""The history of a training that samples as it goes: a row for every step, in a CSV file."""

import csv
import io
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from dpa.artefacts.outputs import write_text
from dpa.errors import InputError
from dpa.training.trainer import ProgressCallback


class StepHistory(ProgressCallback):
    """Progress lines about what was sampled; the rows of the history file.

    The trainer logs every step.
    """

    columns: ClassVar[Sequence[str]]
    """Of the file."""
    mark: ClassVar[str]
    """What a step's entry in the log has, and others have not."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    @abstractmethod
    def row(self, step: int, logs: dict[str, Any]) -> dict[str, Any]:
        """A row from what the trainer logs."""

    @abstractmethod
    def note_of(self, row: dict[str, Any]) -> str:
        """What the progress line says of a row."""

    def note(self) -> str:
        """About the last step that was logged: a step is logged after it has ended."""
        return self.note_of(self.rows[-1]) if self.rows else ""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        # Steps before a checkpoint that training resumes from.
        self.rows = [self.row(e["step"], e) for e in state.log_history if self.mark in e]

    def on_log(self, args, state, control, logs=None, **kwargs):
        super().on_log(args, state, control, logs, **kwargs)
        if not logs or self.mark not in logs:
            return
        # Where the loss says nothing, it is in its gradient that a divergence shows.
        if not math.isfinite(logs.get("grad_norm", 0.0)):
            raise InputError(
                f"training diverged: gradient norm {logs['grad_norm']} at step "
                f"{state.global_step}; lower the stage's learning_rate"
            )
        self.rows.append(self.row(state.global_step, logs))

    def summary(self) -> dict[str, Any]:
        return {"history": self.rows}

    def write(self, path: Path) -> None:
        """Write the history as CSV, numbers with six digits."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        write_text(path, text.getvalue())
