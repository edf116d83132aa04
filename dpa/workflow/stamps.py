"""Small files in the place of a rule's code and of a user's own inputs.

A stamp holds a hash of content and is rewritten only when that changes: comments in the code rerun
nothing, nor does a file that was merely touched; a file replaced by an older one does. Stamps lie
in `results/.stamps/`, outside of all experiments.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from dpa.artefacts.closures import CLONE, Modules, file_key
from dpa.artefacts.files import content_hash, folder_hash
from dpa.artefacts.outputs import replace_text
from dpa.artefacts.sidecars import HASHES
from dpa.errors import InputError
from dpa.runtime.log import log
from dpa.runtime.reading import read_json_object

STAMPS = HASHES.parent
#: Files of more bytes are announced before they are hashed.
ANNOUNCED_BYTES = 10**9


class Stamps:
    """The stamps of a working directory.

    Only the main process of a run writes them (`writing`); cluster jobs, which parse the workflow
    again, find them there.
    """

    def __init__(self, writing: bool = True, folder: Path = STAMPS):
        self.folder, self.writing = folder, writing
        self.modules = Modules(self.known)

    @cached_property
    def known(self) -> dict[str, Any]:
        """What was hashed before, by device, inode, size and modification time."""
        try:
            return read_json_object(self.folder / HASHES.name)
        except InputError:
            return {}

    def save(self) -> None:
        """Keep what was hashed for the next time."""
        if self.writing:
            _write_if_changed(self.folder / HASHES.name, json.dumps(self.known, indent=0) + "\n")

    def code(self, script: str, others: Iterable[str] = ()) -> str:
        """The stamp of a script's code closure, and of `others`: paths of the clone."""
        stamp = self.folder / "code" / script
        if self.writing or not stamp.exists():
            lines = [self.modules.hash(self.modules.closure(CLONE / "scripts" / f"{script}.py"))]
            lines += [f"{path} {self._hash(CLONE / path)}" for path in others]
            _write_if_changed(stamp, "\n".join(lines) + "\n")
        return stamp.as_posix()

    def content(self, path: str) -> str:
        """The stamp of a user's own file or folder; the path itself where there is nothing.

        Raises InputError for a path with braces where there is nothing.
        """
        source = Path(path)
        if not source.exists():
            if "{" in path:
                raise InputError(f"{path}: no such file; correct the path in the configuration")
            return path  # Snakemake says that it is missing
        slug = re.sub(r"[^A-Za-z0-9.-]+", "_", path).strip("_")[-40:]
        name = f"{slug}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        stamp = self.folder / "inputs" / name
        if self.writing or not stamp.exists():
            _write_if_changed(stamp, f"{path} {self._hash(source)}\n")
        return stamp.as_posix()

    def _hash(self, source: Path) -> str:
        """SHA-256 of a file, or of a folder's (name, hash) pairs; nothing is read twice."""
        if source.is_dir():
            return folder_hash(source, self._hash)
        key = file_key(source)
        if key not in self.known:
            if source.stat().st_size > ANNOUNCED_BYTES:
                log.warning("hashing %s, once", source)
            self.known[key] = content_hash(source)
        return self.known[key]


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_bytes() != text.encode():
        replace_text(path, text)


def relative_to_here(path: Path) -> str:
    """A file of the clone, as seen from the working directory: the same on any machine."""
    return Path(os.path.relpath(path)).as_posix()
