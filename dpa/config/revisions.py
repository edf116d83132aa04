"""Revisions of hub repositories: what `locked` in a configuration stands for.

A hub repository changes; a commit of it does not. Experiments write `revision: locked`, and
revisions.lock.yaml, one file for all experiments, says which commit that is. `snakemake
lock_revisions` asks the hub and writes the file.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from dpa.config.base import RepositoryKind, is_commit
from dpa.errors import InputError
from dpa.runtime.sections import read_value

#: The parts of the lock file.
REPOSITORY_KINDS: tuple[RepositoryKind, ...] = ("model", "dataset")


#: The lock file, in the repository's root.
LOCK_FILE = "revisions.lock.yaml"


#: In place of a commit: the one in the lock file.
LOCKED = "locked"


#: The branch that an unlocked revision stands for where the configuration allows it.
BRANCH = "main"


HEADER = """\
# Commits of the hub repositories that experiments name with `revision: locked`, for all of them.
# Written by `snakemake lock_revisions`, which adds what is missing and keeps what is here: delete
# an entry to ask the hub again. `verified: false` marks a commit that was never compared with the
# hub, which `python -m scripts.lock_revisions --check` does. Commit this file with your results.
"""


class NotOnHub(InputError):
    """The hub answers, and does not have what it was asked for."""


class Lock(msgspec.Struct):
    """Repository -> commit, for models and for data sets."""

    models: dict[str, str] = {}
    datasets: dict[str, str] = {}
    unverified: set[tuple[RepositoryKind, str]] = set()
    """Those whose commit has not been compared with the hub."""

    def commits(self, kind: RepositoryKind) -> dict[str, str]:
        """The part for models or for data sets, to read or to fill."""
        return self.models if kind == "model" else self.datasets

    def __iter__(self) -> Iterator[tuple[RepositoryKind, str, str]]:
        """(kind, repository, commit), sorted."""
        for kind in REPOSITORY_KINDS:
            for repository, commit in sorted(self.commits(kind).items()):
                yield kind, repository, commit


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A line of the file that says more than the commit."""

    commit: str
    verified: bool


class _File(msgspec.Struct, forbid_unknown_fields=True):
    models: dict[str, str | _Entry] = {}
    datasets: dict[str, str | _Entry] = {}


def read_lock(path: Path) -> Lock:
    """The lock file; empty when there is none. Raises InputError naming what is wrong in it."""
    lock = Lock()
    if not path.exists():
        return lock
    try:
        file = msgspec.convert(read_value(path) or {}, _File)
    except (InputError, msgspec.ValidationError) as error:
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise InputError(f"{path}: {reason}; repair it or lock the revisions anew") from None
    for kind, entries in zip(REPOSITORY_KINDS, (file.models, file.datasets), strict=True):
        for repository, entry in entries.items():
            commit = entry if isinstance(entry, str) else entry.commit
            if not is_commit(commit):
                raise InputError(
                    f"{path}: {repository}: {commit!r} is not a commit of 40 hexadecimal digits; "
                    "delete the entry and run snakemake lock_revisions"
                )
            lock.commits(kind)[repository] = commit
            if isinstance(entry, _Entry) and not entry.verified:
                lock.unverified.add((kind, repository))
    return lock


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock file, sorted, atomically."""
    import yaml

    from dpa.artefacts.outputs import replace_text

    parts: dict[str, dict[str, Any]] = {"models": {}, "datasets": {}}
    for kind, repository, commit in lock:
        unverified = (kind, repository) in lock.unverified
        parts[f"{kind}s"][repository] = (
            {"commit": commit, "verified": False} if unverified else commit
        )
    replace_text(path, HEADER + yaml.safe_dump(parts, sort_keys=False))


def complete(lock: Lock, kind: RepositoryKind, repositories: Iterable[str]) -> list[str]:
    """Add the commits of those repositories that the lock lacks; returns these repositories."""
    known = lock.commits(kind)
    missing = [name for name in dict.fromkeys(repositories) if name not in known]
    for name in missing:
        known[name] = ask_hub(kind, name)
        lock.unverified.discard((kind, name))
    return missing


def check_lock(lock: Lock) -> tuple[list[str], list[str]]:
    """Compare the lock's commits with the hub, and take those that it has for verified.

    Returns a line for each commit that the hub does not have, and for each repository that it could
    not be asked about.
    """
    wrong: list[str] = []
    unasked: list[str] = []
    for kind, repository, commit in lock:
        try:
            ask_hub(kind, repository, commit)
            lock.unverified.discard((kind, repository))
        except NotOnHub as error:
            wrong.append(str(error))
        except InputError as error:
            unasked.append(str(error))
    return wrong, unasked


def ask_hub(kind: RepositoryKind, repository: str, revision: str | None = None) -> str:
    """The commit of a hub repository at a revision, by default the head of its main branch.

    Raises InputError saying why there is none: NotOnHub where the hub says so.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.errors import HTTPError as ConnectionFailed  # type: ignore[attr-defined]

    what = f"{'data set' if kind == 'dataset' else kind} {repository}"
    what += f" at {revision}" if revision else ""
    try:
        commit = HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=60).sha
    except HFValidationError as error:
        raise InputError(f"{what}: not a hub id: {error}") from None
    except (ConnectionFailed, OSError) as error:
        absent = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError)
        reason = " ".join(str(error).split())
        raise (NotOnHub if absent else InputError)(
            f"{what}: the hub does not {'have it' if absent else 'answer'}: {reason}; check the "
            "name and that the hub can be reached from here (a private or gated repository needs "
            "`hf auth login` or HF_TOKEN)"
        ) from None
    if commit is None or not is_commit(commit) or revision not in (None, commit):
        raise InputError(f"{what}: the hub gave {commit!r} in place of a commit")
    return commit
