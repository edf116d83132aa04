"""The one exception that users are meant to read, and what becomes of others."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Why a file cannot be written that another place, or more room, would cure.
UNWRITABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
)  # fmt: skip


class InputError(ValueError):
    """Bad input. The message names place (file, line, key) and remedy; no traceback is shown."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder, while the block writes `path`, into an InputError."""
    try:
        yield
    except Exception as error:
        why = _why_unwritable(error)
        if why is None:
            raise
        raise unwritable(path, why) from None


def _why_unwritable(error: BaseException | None) -> str | None:
    """What the system says about writing, if that is what an error is about or comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            return error.strerror
        if isinstance(error, shutil.Error):  # copytree's (source, destination, why) of each file
            return str(error.args[0][0][2])
        # safetensors has an exception of its own for what the system says.
        if type(error).__name__ == "SafetensorError" and "os error" in str(error).lower():
            return str(error)
        error = error.__context__
    return None


def unwritable(path: Path, why: str) -> InputError:
    """The error for a file that cannot be written."""
    return InputError(
        f"{path}: cannot be written: {why}; make room, or make the folder writable, then rerun: "
        "what is complete is kept"
    )


def out_of_memory(error: BaseException) -> str | None:
    """The message for an error that says that memory ran out; None for any other."""
    if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
        return None
    text = " ".join(str(error).split())[:200]
    return (
        f"out of memory{f' ({text})' if text else ''}; lower sampling.rows_per_batch (if this is "
        "sampling), reward_model.tokens_per_batch (scoring) or "
        "trainer.per_device_batch_size (training), then rerun: what is complete is kept"
    )
