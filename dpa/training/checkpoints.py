"""Training that survives a kill: checkpoints while it runs, and resuming from the last one.

While a model is trained, `<output>.partial/` holds `checkpoint-<step>/` (weights, optimiser,
schedule, random states of every process), and beside it lies a fingerprint: hashes of whatever
determines the result. A rerun with the same fingerprint resumes from the newest complete
checkpoint, with the same rows in the same order; any other starts anew, and says why. A checkpoint
is complete when the main process has written its name into `complete`, after every process has
written its part: what a kill interrupted is discarded. The finished model is kept there too until
its sidecar is written; then it is moved into place as a whole, and the partial folder removed.

On SIGTERM (a scheduler preempts the job) training ends after the current step with a checkpoint.
"""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from dpa.artefacts.files import sync
from dpa.artefacts.outputs import Fingerprint, OutputClaim, claim, replace_text
from dpa.artefacts.sidecars import fingerprint
from dpa.models import ModelRef
from dpa.runtime.log import log
from dpa.training.processes import agree, any_process, is_main_process, process_state


class Checkpoints:
    """The checkpoints of the model that becomes `output`."""

    def __init__(self, output: Path, fingerprint: Callable[[], Fingerprint]):
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self._claim: OutputClaim | None = None
        if is_main_process():
            self._claim = claim(output)
            self._claim.resume(fingerprint())
            self._claim.folder()
            self._discard_incomplete()
        #: The checkpoint to resume from, if any.
        self.last: Path | None = agree(self._newest())

    @property
    def _complete(self) -> Path:
        return self.folder / "complete"

    def _discard_incomplete(self) -> None:
        """Remove checkpoints that a kill interrupted."""
        complete = self._names()
        for path in self.folder.glob("checkpoint-*"):
            if path.name not in complete:
                log.warning("%s: discarded: a kill interrupted its writing", path)
                shutil.rmtree(path)

    def _names(self) -> list[str]:
        return self._complete.read_text().split() if self._complete.exists() else []

    def _newest(self) -> Path | None:
        paths = [path for name in self._names() if (path := self.folder / name).is_dir()]
        return max(paths, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def mark(self, step: int) -> None:
        """Called by every process when it has written its part of a step's checkpoint."""
        process_state().wait_for_everyone()
        if is_main_process():
            sync(self.folder / f"checkpoint-{step}")
            kept = [name for name in self._names() if (self.folder / name).is_dir()]
            replace_text(self._complete, "\n".join([*kept, f"checkpoint-{step}"]))

    @property
    def finished(self) -> Path:
        """Where the finished model waits for its sidecar."""
        return self.folder / "finished"

    @property
    def _trained(self) -> Path:
        return self.folder / "trained.json"

    def trained(self) -> dict[str, Any] | None:
        """What `keep` was given about the finished model, if any; the same in all processes."""
        there = self._trained.exists() and self.finished.is_dir()
        return agree(json.loads(self._trained.read_text()) if there else None)

    def keep(self, save: Callable[[Path], None], details: dict[str, Any]) -> None:
        """Let `save` write the finished model into a folder, and keep its `details` (JSON values).

        Every process calls this, because gathering a sharded model takes all of them; `save` writes
        in the main process only.
        """
        if is_main_process():
            self._trained.unlink(missing_ok=True)
            shutil.rmtree(self.finished, ignore_errors=True)
            self.finished.mkdir()
        save(self.finished)
        if is_main_process():
            sync(self.finished)
            replace_text(self._trained, json.dumps(details))

    def finish(self, sidecar: Callable[[Path], None]) -> None:
        """Have the sidecar of the kept model written, move the model into place, and clean up.

        `sidecar` is given the folder whose content it is about. The sidecar comes first: what is
        killed in between finds the model here, and nothing is trained again.
        """
        if self._claim is not None:
            sidecar(self.finished)
            self._claim.put_in_place(self.finished)
            self._claim.finish()

    def close(self) -> None:
        """Stop training; what is done is kept."""
        if self._claim is not None:
            self._claim.release()


class CheckpointCallback(TrainerCallback):
    """Completes checkpoints, and ends training with one on SIGTERM."""

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints
        self.asked_to_stop = False
        self.stopped = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.previous = signal.signal(signal.SIGTERM, self._ask_to_stop)

    def on_train_end(self, args, state, control, **kwargs):
        signal.signal(signal.SIGTERM, self.previous)

    def _ask_to_stop(self, *_):
        self.asked_to_stop = True

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_save = False  # the finished model is saved next
        elif any_process(self.asked_to_stop):
            self.stopped = control.should_save = control.should_training_stop = True
        # A resumed run counts from its checkpoint: what was not logged by then would be lost.
        control.should_log |= control.should_save or state.global_step >= state.max_steps

    def on_save(self, args, state, control, **kwargs):
        self.checkpoints.mark(state.global_step)
        if self.stopped:
            log.info("stopped by SIGTERM after step %d: run again to resume", state.global_step)


def training_fingerprint(start: Any, rows: Iterable[Any], **settings: Any) -> Fingerprint:
    """What determines a trained model: where it starts, rows, settings, processes, code, packages.

    `start` is a ModelRef, or a model; `rows` are dicts of numbers or texts; `settings` are JSON
    values.
    """
    given = isinstance(start, ModelRef)
    return fingerprint(
        [start.path] if given else [],
        start=str(start) if given else _digest_of([dict(start.named_parameters())]),
        rows=_digest_of(rows),
        processes=process_state().num_processes,
        **settings,
    )


def _digest_of(rows: Iterable[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        for name, value in row.items():
            digest.update(name.encode() + _bytes(value))
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return json.dumps(value).encode()
