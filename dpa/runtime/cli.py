"""What all scripts share: how they start and fail."""

import logging
import os
import platform
import sys
from pathlib import Path
from typing import NoReturn

import typer

from dpa.errors import UNWRITABLE, InputError, out_of_memory, unwritable
from dpa.runtime.log import VisibleFormatter, log
from dpa.runtime.startup import script_starts


def make_app() -> typer.Typer:
    """A Typer app without shell completion and without local variables in tracebacks."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def run_app(app: typer.Typer, *, sklearn: bool = False) -> None:
    """Run the app: log lines on standard error, InputError as one message and exit status 2.

    Of several processes that train together (RANK is accelerate's) the first one logs progress.
    `sklearn`: whether the script may import scikit-learn.
    """
    script_starts(sklearn=sklearn)
    name = Path(sys.argv[0]).stem
    first = os.environ.get("RANK", "0") == "0"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter(f"[{name}] %(message)s"))
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR, handlers=[handler], force=True
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
