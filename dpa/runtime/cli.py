"""What all scripts share: how they start and fail."""

import inspect
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import typer

from dpa.errors import UNWRITABLE, InputError, out_of_memory, unwritable
from dpa.runtime.log import VisibleFormatter, log
from dpa.runtime.options import EITHER, FILES_WITHIN, FOLDER, OverwriteOption
from dpa.runtime.outer_environment import is_launched, remove_outer_settings, removed_message
from dpa.runtime.startup import script_starts


class App(typer.Typer):
    """An app whose command, if it writes, has --overwrite, and claims its outputs first."""

    def command(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """As Typer's own."""
        register = super().command(*arguments, **options)
        return lambda main: register(_claiming(main))


def make_app() -> App:
    """A Typer app without shell completion and without local variables in tracebacks."""
    return App(add_completion=False, pretty_exceptions_enable=False)


def _claiming(main: Callable[..., None]) -> Callable[..., None]:
    """A script's body, run with a claim to what its flags `--output...` name.

    What is read is whatever else the command line names: files, folders, models, `@file`.
    """
    signature = inspect.signature(main)
    outputs = [name for name in signature.parameters if name.startswith("output")]
    if not outputs:
        return main

    @wraps(main)
    def claiming(*, overwrite: bool = False, **values: Any) -> None:
        if os.environ.get("RANK", "0") != "0":  # of processes that train together, the first writes
            return main(**values)
        from dpa.artefacts.outputs import command

        folders = {FOLDER: True, EITHER: None}
        written = [
            (values[name], folders.get(kind, False))
            for name in outputs
            if values[name] is not None
            and (kind := _kind(signature.parameters[name])) != FILES_WITHIN
        ]
        named = {name: list(_paths(values[name])) for name in values if name not in outputs}
        surrounds = [path for name in ("results", "run") for path in named.pop(name, [])]
        reads = [path for paths in named.values() for path in paths]
        with command(written, reads, surrounds, overwrite):
            return main(**values)

    parameter = inspect.Parameter(
        "overwrite", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=OverwriteOption
    )
    claiming.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), parameter]
    )
    claiming.__annotations__ = {**main.__annotations__, "overwrite": OverwriteOption}
    return claiming


def _kind(parameter: inspect.Parameter) -> str:
    """What an output is, from its option; most are files."""
    marks = getattr(parameter.annotation, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, str)), "")


def _paths(value: Any) -> Iterator[Path]:
    """What a value of a command line names that is there."""
    if isinstance(value, list):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, Path):
        yield value
    elif isinstance(value, str) and value:
        path = Path(value.removeprefix("@"))
        try:
            if path.is_file() or (path / "config.json").is_file():
                yield path
        except OSError:  # longer than a name can be: no file
            pass


def run_app(app: typer.Typer, *, sklearn: bool = False) -> None:
    """Run the app: log lines on standard error, InputError as one message and exit status 2.

    Of several processes that train together (RANK is the launcher's) the first one logs progress.
    What an outer shell may not decide is removed before anything heavy is imported. `sklearn`:
    whether the script may import scikit-learn.
    """
    script_starts(sklearn=sklearn)
    removed = remove_outer_settings(os.environ, launched=is_launched())
    name = Path(sys.argv[0]).stem
    first = os.environ.get("RANK", "0") == "0"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter(f"[{name}] %(message)s"))
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR, handlers=[handler], force=True
    )
    for noisy in ("httpx", "httpx2", "filelock", "transformers", "vllm", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for own in ("huggingface_hub", "datasets"):
        # They add a handler of their own when they are imported: a line would be there twice.
        logging.getLogger(own).propagate = False
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if removed:
        log.warning(removed_message(removed))
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
