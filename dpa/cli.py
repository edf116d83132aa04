"""What all scripts share: how they start, report progress and fail."""

import json
import logging
import os
import platform
import sys
import time
from pathlib import Path
from typing import NoReturn, TypeVar

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from dpa.errors import UNWRITABLE, InputError, out_of_memory, unwritable
from dpa.startup import script_starts

log = logging.getLogger("dpa")

T = TypeVar("T", bound=BaseModel)


def make_app() -> typer.Typer:
    """A Typer app without shell completion and without local variables in tracebacks."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def run(app: typer.Typer, *, sklearn: bool = False) -> None:
    """Run the app: log lines on standard error, InputError as one message and exit status 2.

    Of several processes that train together (RANK is accelerate's) the first one logs progress.
    `sklearn`: whether the script may import scikit-learn.
    """
    script_starts(sklearn=sklearn)
    name = Path(sys.argv[0]).stem
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR,
        format=f"[{name}] %(message)s",
        stream=sys.stderr,
        force=True,
    )
    for noisy in ("httpx", "httpx2", "filelock", "transformers", "vllm", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if gpus := os.environ.get("CUDA_VISIBLE_DEVICES"):
        log.info("on %s, GPU %s", platform.node(), gpus)
    try:
        app()
    except InputError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        fail(str(unwritable(Path(error.filename or "a file"), str(error.strerror))))
    except (MemoryError, RuntimeError) as error:
        if (message := out_of_memory(error)) is None:
            raise
        fail(message)


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with status 2."""
    log.error("error: %s", message)
    sys.exit(2)


def parse(type: type[T] | TypeAdapter, text: str, option: str):
    """A section of the configuration given as JSON on the command line, validated."""
    try:
        if isinstance(type, TypeAdapter):
            return type.validate_python(json.loads(text))
        return type.model_validate(json.loads(text))
    except (json.JSONDecodeError, ValidationError) as error:
        raise InputError(f"--{option}: {error}") from None


class Progress:
    """Prints `done/total unit, rate` at most every `every` seconds, and at the end."""

    def __init__(self, total: int, unit: str, done: int = 0, every: float = 10.0):
        self.total, self.unit, self.done, self.every = total, unit, done, every
        self.first, self.start = done, time.monotonic()
        self.last = self.start
        if done:
            log.info("resuming behind %d of %d %s", done, total, unit)

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more as done; `note` is appended to the line.

        With 0 it is a sign of life: a line once `every` seconds are over.
        """
        self.done += count
        now = time.monotonic()
        if now - self.last >= self.every or (count and self.done >= self.total):
            self.last = now
            rate = (self.done - self.first) / max(now - self.start, 1e-9)
            log.info("%d/%d %s, %.3g/s%s", self.done, self.total, self.unit, rate, note)
