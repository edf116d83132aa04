"""The one place that opens outputs: one writer at a time, and nothing is replaced that is not ours.

While an output is made, two more things lie beside it: `<output>.partial`, a file or a folder with
what is done of it, and `<output>.partial.for`, which says who makes it (the command, and for work
that resumes a fingerprint of all that determines the result) and is locked by its writer. Both are
created exclusively and follow no links; a partial without the other is not ours, and is left alone.

A command (dpa/runtime/cli.py says when one begins) replaces a file or a folder only if its sidecar
says that the same command made it and that it has not been changed since, if a kill came between
it and its sidecar, or with --overwrite; what it reads it never replaces.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dpa.artefacts.files import CARD, TIMESTAMP, content_hash, move_into_place
from dpa.errors import UNWRITABLE, InputError, writing
from dpa.runtime.log import log
from dpa.runtime.reading import decode_json, read_document, read_json_object

#: What a sidecar's name adds to its artefact's.
SIDECAR = ".meta.json"
PARTIAL = ".partial"
MAKER = ".partial.for"
#: Neither links nor pipes are followed, nothing is emptied, and no child process inherits it.
FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: What determines a partial result: a hash for each kind of thing.
Fingerprint = dict[str, str]


class InUse(InputError):
    """Another process is writing the output."""


@dataclass
class Command:
    """The command that this process runs: what it reads, and what it may replace."""

    reads: list[Path]
    surrounds: list[Path]
    """Folders in which outputs may lie, but which no output may replace."""
    overwrite: bool
    held: dict[Path, "OutputClaim"] = field(default_factory=dict)


_command: Command | None = None


def stage() -> str:
    """The name of the command, as sidecars give it."""
    return Path(sys.argv[0]).stem


def sidecar_path(artefact: Path) -> Path:
    """`<artefact>.meta.json`, for files and folders alike."""
    return artefact.with_name(artefact.name + SIDECAR)


# --- Commands --------------------------------------------------------------------------------


@contextmanager
def command(
    outputs: Sequence[tuple[Path, bool | None]],
    reads: Iterable[Path],
    surrounds: Iterable[Path],
    overwrite: bool,
) -> Iterator[None]:
    """Claim a command's outputs for as long as it runs: before a model is loaded, all that can be
    known of them is checked.

    `outputs` are with whether they are folders, None where that depends. Raises InputError when one
    must not be written.
    """
    global _command
    _command = Command(list(reads), [*surrounds, Path()], overwrite)
    try:
        _check_apart([path for path, _ in outputs])
        for path, folder in outputs:
            hold(path, folder)
        yield
        for claimed in list(_command.held.values()):
            claimed.finish()
    finally:
        for claimed in list(_command.held.values()):
            claimed.release()
        _command = None


def hold(path: Path, folder: bool | None = False) -> None:
    """Claim an output of the running command until its sidecar is written, or the command ends."""
    if _command is not None and (place := _place(path)) not in _command.held:
        claimed = OutputClaim(path)
        try:
            claimed.check_kind(folder)
        except InputError:
            claimed.release()
            raise
        _command.held[place] = claimed


def finish(path: Path) -> None:
    """The sidecar of an output is written: it is complete."""
    if _command is not None and (claimed := _command.held.get(_place(path))):
        claimed.finish()


def note_read(path: Path) -> None:
    """Tell what the running command reads, besides what its command line names.

    Raises InputError when it is one of its outputs.
    """
    if _command is not None and path not in _command.reads:
        _command.reads.append(path)
        for claimed in _command.held.values():
            _check_not_read(claimed.path, [path], [])


def _check_apart(outputs: Sequence[Path]) -> None:
    """Refuse outputs of which one would replace another, or what lies beside it."""
    taken: dict[Path, Path] = {}
    for output in outputs:
        for place in _names(_place(output)):
            if place in taken:
                raise InputError(
                    f"{output}: is needed for {taken[place]} as well; give each output a place"
                )
        taken |= dict.fromkeys(_names(_place(output)), output)
    for output in outputs:
        for other in outputs:
            if _place(other) in _place(output).parents:
                raise InputError(f"{output}: is inside {other}, which is written as a whole")


def _check_not_read(path: Path, reads: Iterable[Path], surrounds: Iterable[Path]) -> None:
    """Refuse an output that would replace, or be put into, what is read."""
    place = _place(path)
    for read in reads:
        found = read.resolve()
        same = any(
            name == found or (name.exists() and found.exists() and name.samefile(found))
            for name in _names(place)
        )
        if same or (place.exists() and _is_within(place, found)):
            raise InputError(f"{path}: would replace {read}, which is read; choose another place")
        if found in place.parents and found.is_dir():
            raise InputError(f"{path}: is inside {read}, which is read; choose another place")
        if place in found.parents:
            raise InputError(f"{path}: holds {read}, which is read; choose another place")
    for folder in surrounds:
        if place == folder.resolve() or place in folder.resolve().parents:
            raise InputError(
                f"{path}: holds the folder {folder.resolve()}, which is in use; choose another "
                "place"
            )


def _is_within(output: Path, folder: Path) -> bool:
    """Whether a file is one of a folder's under another name: a link, or a hard link."""
    return (
        output.is_file()
        and folder.is_dir()
        and any(p.is_file() and p.samefile(output) for p in folder.rglob("*"))
    )


# --- Claims ----------------------------------------------------------------------------------


def claim(path: Path) -> "OutputClaim":
    """The running command's claim to an output, or a new one. Raises as that does."""
    if _command is not None and (held := _command.held.get(_place(path))):
        return held
    return OutputClaim(path)


class OutputClaim:
    """The right of one process to write an output, and what is known of the work on it.

    Raises InputError when the output must not be written, InUse when another process writes it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.place = _place(path)
        self.partial = self.place.with_name(self.place.name + PARTIAL)
        self._maker = self.place.with_name(self.place.name + MAKER)
        checked = None if _command and self._is_part_of_ours(_command) else _command
        with writing(path), _naming(path):
            if checked:
                _check_not_read(path, checked.reads, checked.surrounds)
            self.place.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._locked()
        try:
            self.record = self._read_record()
            if checked:
                self._check_ours(checked.overwrite)
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def _is_part_of_ours(self, running: Command) -> bool:
        return any(held.partial in self.place.parents for held in running.held.values())

    def _locked(self) -> BinaryIO:
        """The maker's file, locked until it is closed. A process that dies gives its lock back."""
        while True:
            if os.path.lexists(self.partial) and not os.path.lexists(self._maker):
                raise InputError(
                    f"{self.partial}: is not of this pipeline (it lacks {self._maker.name}), and "
                    f"in the way of {self.path}; rename it, or choose another place"
                )
            try:
                file = os.fdopen(os.open(self._maker, FLAGS | os.O_CREAT, 0o666), "r+b")
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    raise self._not_a_lock() from None
                raise
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise InUse(
                    f"{self.path}: another process is writing it; let it finish or end it, then "
                    "rerun"
                ) from None
            except OSError:
                return file  # a file system without locks
            try:
                if os.path.samestat(os.fstat(file.fileno()), os.lstat(self._maker)):
                    return file
            except FileNotFoundError:
                pass
            file.close()  # its writer has just completed the output

    def _not_a_lock(self) -> InputError:
        return InputError(
            f"{self._maker}: is not of this pipeline, and in the way of {self.path}; rename it, or "
            "choose another place"
        )

    def _read_record(self) -> Fingerprint:
        """Who began to make the output; empty where it was not begun."""
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise self._not_a_lock()
        text = self._file.read(1 << 16)
        try:
            found = json.loads(text or b"{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or (text and "stage" not in found):
            raise self._not_a_lock()
        return found

    def _write_record(self, record: Fingerprint) -> None:
        self.record = record
        with writing(self.path):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(record).encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def _begin(self) -> None:
        """Say that this command makes the output; another's part of it is of no use."""
        if self.record.get("stage") != stage():
            if os.path.lexists(self.partial):
                log.warning("%s: discarded: %s left it", self.partial, self.record.get("stage"))
                remove(self.partial)
            self._write_record({"stage": stage()})

    def _check_ours(self, overwrite: bool) -> None:
        """Refuse to replace what this command has not made."""
        refused = None
        if os.path.lexists(self.place):
            if self.place.exists() and not (self.place.is_file() or self.place.is_dir()):
                refused = InputError(f"{self.path}: is a device or a pipe; give a file's name")
            elif not overwrite and (why := self._why_not_ours()):
                refused = InputError(
                    f"{self.path}: is there already, and {why}; choose another place, move it "
                    "away, or add --overwrite"
                )
        sidecar = sidecar_path(self.place)
        if refused is None and not overwrite and not _may_be_a_sidecar(sidecar):
            refused = InputError(
                f"{sidecar}: is not a sidecar of this pipeline, and in the way of {self.path}'s; "
                "move it away, choose another place, or add --overwrite"
            )
        if refused:
            if not self.record:
                self._maker.unlink()  # we have just made it
            raise refused

    def _why_not_ours(self) -> str | None:
        """Why this command may not replace what is there; None if it may."""
        left = self.record.get("stage") == stage() and self.record.get("made") == _mark(self.place)
        if left or _is_empty(self.place):
            return None
        try:
            sidecar = read_json_object(sidecar_path(self.place))
        except InputError:
            sidecar = {}
        if "stage" not in sidecar:
            return f"{stage()} has not made it"
        if sidecar["stage"] != stage():
            return f"{sidecar['stage']} has made it"
        made = sidecar.get("sha256"), sidecar.get("card")
        if made != (content_hash(self.place), content_hash(self.place / CARD)):
            return "was changed after it was made"
        return None

    def check_kind(self, folder: bool | None) -> None:
        """Raises InputError for a file in the place of a folder, or the reverse."""
        if folder is not None and self.place.exists() and self.place.is_dir() != folder:
            kinds = ("a folder", "a file") if self.place.is_dir() else ("a file", "a folder")
            raise InputError(
                f"{self.path}: is {kinds[0]}, and {kinds[1]} is to be written; choose another place"
            )

    def resume(self, now: Fingerprint) -> bool:
        """Whether what is done of the output is of use; what was made otherwise is discarded, and
        the log says why."""
        if not (reason := why_foreign(self.record, now)):
            return True
        if self.partial.is_dir() and not _is_empty(self.partial):
            log.warning("%s: discarded, and started anew: %s", self._partial_given, reason)
        elif self.partial.is_file() and (size := self.partial.stat().st_size):
            log.warning("%s: discarded (%d bytes): %s", self._partial_given, size, reason)
        with writing(self.path):
            remove(self.partial)
        self._write_record({"stage": stage(), **now})
        return False

    @property
    def _partial_given(self) -> Path:
        return self.path.with_name(self.partial.name)

    def new_file(self) -> BinaryIO:
        """The partial file, new and empty."""
        remove(self.partial)
        return self.file()

    def file(self) -> BinaryIO:
        """The partial file, to append to and read: what is there, or a new one."""
        if os.path.lexists(self.partial):
            opened = os.open(self.partial, FLAGS | os.O_APPEND)
        else:
            opened = os.open(self.partial, FLAGS | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        return os.fdopen(opened, "r+b")

    def folder(self) -> Path:
        """The partial folder: what is there, or a new one."""
        if self.partial.is_symlink() or not self.partial.is_dir():
            remove(self.partial)
            self.partial.mkdir()
        return self._partial_given

    def put_in_place(self, made: Path) -> None:
        """Move a complete file or folder to the output's place, durably."""
        self.check_kind(made.is_dir())
        self._write_record({**self.record, "made": _mark(made)})
        if made.is_dir():
            remove(self.place)
        move_into_place(made, self.place)

    def finish(self) -> None:
        """The output and its sidecar are in place: nothing else is left of the work."""
        if self._file.closed:
            return
        if os.path.lexists(self.partial):
            self._write_record({"stage": stage()})  # or a kill would leave half of it to resume
            remove(self.partial)
        self.record.pop("made", None)
        self.release()

    def release(self) -> None:
        """Give the output back; what is done of it is kept, and that it was done here."""
        if self._file.closed:
            return
        if not os.path.lexists(self.partial) and "made" not in self.record:
            self._maker.unlink(missing_ok=True)
        self._file.close()
        if _command is not None and _command.held.get(self.place) is self:
            del _command.held[self.place]


def why_foreign(record: Fingerprint, now: Fingerprint) -> str | None:
    """Why work that was begun with `record` is of no use for a result of `now`; None if it is."""
    differing = [kind for kind in now if record.get(kind) != now[kind]]
    return f"it was made with other {' and '.join(differing)}" if differing else None


# --- Writing ---------------------------------------------------------------------------------


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """An empty partial file, moved to `path` when the block succeeds."""
    with claimed(path) as mine:
        try:
            mine.new_file().close()
            yield mine.partial
            mine.put_in_place(mine.partial)
        except BaseException:
            mine.partial.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def save_folder(path: Path, save: Callable[[Path], None]) -> None:
    """Let `save` fill a folder, and move it into place when it is complete."""
    with claimed(path) as mine:
        try:
            remove(mine.partial)
            save(mine.folder())
            mine.put_in_place(mine.partial)
        except BaseException:
            remove(mine.partial)
            raise


@contextmanager
def claimed(path: Path) -> Iterator[OutputClaim]:
    """The claim to an output that the block completes; what is done stays when it fails."""
    mine = claim(path)
    held = _command is not None and _command.held.get(mine.place) is mine
    try:
        with writing(path):
            yield mine
    except BaseException:
        if not held:
            mine.release()
        raise
    if not held:
        mine.finish()


def replace_text(path: Path, text: str) -> None:
    """Write one of the pipeline's own small files (a sidecar, a stamp, a kept answer) atomically.

    Whoever else writes it at the same time writes another file first, and the last one stays.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{os.urandom(8).hex()}.tmp")
        try:
            with open(partial, "x", encoding="utf-8") as file:
                file.write(text)
            move_into_place(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def remove(path: Path) -> None:
    """Delete a file, a link (not what it points to) or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- Places ----------------------------------------------------------------------------------


def _place(path: Path) -> Path:
    """Where an output goes, by one name: links of folders above it resolved, its own not."""
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def _names(place: Path) -> list[Path]:
    """An output, and what lies beside it."""
    return [place, *(place.with_name(place.name + s) for s in (SIDECAR, PARTIAL, MAKER))]


def _mark(path: Path) -> str:
    """What a file or a folder keeps when it is renamed, and loses when it is replaced or edited."""
    found = path.lstat()
    return f"{found.st_ino} {found.st_mtime_ns}"


def _is_empty(path: Path) -> bool:
    if path.is_dir():
        return all(item.name == TIMESTAMP for item in path.iterdir())
    return path.is_file() and path.stat().st_size == 0


def _may_be_a_sidecar(path: Path) -> bool:
    """Whether a file is a sidecar, or the rest of one."""
    if not os.path.lexists(path):
        return True
    text = b"-"
    try:
        text = read_document(path)
        found = decode_json(text, str(path))
    except InputError:
        return path.is_file() and (not text or text.startswith(b'{\n "'))
    return isinstance(found, dict) and {"artefact", "stage"} <= found.keys()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name what is wrong with an output's place before anything is written there."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(
                f"{path}: the name is too long ({MAKER} and {SIDECAR} are added to it); choose a "
                "shorter one"
            ) from None
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise InputError(
                f"{path}: cannot be written, for a part of its path is a file, not a folder"
            ) from None
        if error.errno in UNWRITABLE:
            raise
        raise InputError(
            f"{path}: cannot be written: {error.strerror}; choose another place"
        ) from None
