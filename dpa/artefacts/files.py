"""Hashes of the content of files and folders, and names that come after content."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

#: Snakemake's mark in a folder that it knows as an output: no content.
TIMESTAMP = ".snakemake_timestamp"
#: Says what a folder is, and which code made it: no content either.
CARD = "README.md"
#: Bytes that are read at a time.
BLOCK = 1 << 20


def content_hash(path: Path) -> str | None:
    """SHA-256 of a file, or of a folder's sorted (name, hash) pairs; None if there is none.

    Not counted are the mark that Snakemake leaves in a folder, for it comes after the sidecar, and
    a card, whose words change with the commit.
    """
    if path.is_dir():
        return folder_hash(path, content_hash)
    if not path.is_file():
        return None
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def folder_hash(folder: Path, hash_of: Callable[[Path], str | None]) -> str:
    """`content_hash` of a folder whose files' hashes are `hash_of` them."""
    lines = (f"{file.relative_to(folder)} {hash_of(file)}\n" for file in files_in(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files_in(path: Path) -> list[Path]:
    """The files of a folder that are content, sorted; of a file, itself."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in (TIMESTAMP, CARD))


def hash_and_lines(path: Path) -> tuple[str, int]:
    """SHA-256 of a file, and how many lines it has, in one reading."""
    digest, lines = hashlib.sha256(), 0
    with open(path, "rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
            lines += block.count(b"\n")
    return digest.hexdigest(), lines


def move_into_place(partial: Path, path: Path) -> None:
    """Rename a complete file or folder to `path`, so that a power cut leaves all of it or nothing:
    content reaches the disk before the name does."""
    sync(partial)
    os.replace(partial, path)
    _sync(path.parent)


def sync(path: Path) -> None:
    """Return when a file, or a folder with all that is in it, is on the disk."""
    for part in sorted(path.rglob("*")) if path.is_dir() else ():
        _sync(part)
    _sync(path)


def _sync(path: Path) -> None:
    """A file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)
