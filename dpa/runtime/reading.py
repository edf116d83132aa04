"""Files from outside, opened within bounds: regular files, lines and documents of limited size.

A FIFO or a device would wait or go on for ever, and a line without an end fills the memory, if need
be out of a small archive. Whatever is beyond a bound is an InputError that names the place.
"""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dpa.errors import InputError

#: Most bytes of a line of JSONL or CSV, and characters of a cell, decompressed. A response of 30 MB
#: is far below it; a few of these fit into the memory of any machine.
MAX_LINE = 256 << 20
#: Most bytes of a file that is read as a whole: sidecars, configurations, checkpoints' JSON.
MAX_DOCUMENT = 64 << 20
#: Most bytes of raw data in one JSON list, which has no lines.
MAX_LIST = 2 << 30

#: Half of a character that JSON writes as two.
HALF = re.compile(r"\\u[dD][89a-fA-F]")

SPECIAL_FILES = (
    (stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"), (stat.S_ISSOCK, "socket"),
)  # fmt: skip


def check_regular(path: Path) -> None:
    """Raise InputError unless `path` is a regular file, or a link to one."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path}: cannot be read: {_reason(error)}") from None
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in SPECIAL_FILES if is_kind(mode)), "special file")
        raise InputError(f"{path}: is a {kind}; give a regular file with the same content")


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened to read bytes. Raises InputError for anything else."""
    check_regular(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {_reason(error)}") from None


def bounded_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of an open file. Raises InputError naming the first that is longer than MAX_LINE,
    once that much of it was read."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise InputError(
                f"{path}:{number}: a line of more than {MAX_LINE >> 20} MiB; split or leave out "
                "what is so long"
            )
        yield line


def read_document(path: Path, limit: int = MAX_DOCUMENT) -> bytes:
    """All of a regular file. Raises InputError when it has more than `limit` bytes."""
    with open_regular(path) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {_reason(error)}") from None
    if len(content) > limit:
        raise InputError(f"{path}: more than {limit >> 20} MiB, too much for such a file")
    return content


def read_json(path: Path) -> Any:
    """A file's JSON value. Raises InputError saying why there is none that can be read."""
    return decode_json(read_document(path), str(path))


def decode_json(content: bytes | str, place: str) -> Any:
    """A JSON value from text; `place` is what an InputError names."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        found = json.loads(text)
        if HALF.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # json.loads lets half a character pass
    except RecursionError:
        raise InputError(f"{place}: nested too deeply") from None
    except ValueError as error:  # also not UTF-8, and whole numbers of thousands of digits
        raise InputError(f"{place}: {error}") from None
    return found


def read_json_object(path: Path) -> dict[str, Any]:
    """A file's JSON object. Raises InputError as read_json does, and for any other value."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: a JSON object is wanted, found {found!r:.80}")
    return found


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
