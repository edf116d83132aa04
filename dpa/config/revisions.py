"""Revisions of hub repositories: what `locked` in a configuration stands for.

A hub repository changes; a commit of it does not. Experiments write `revision: locked`, and
revisions.lock.yaml, one file for all experiments, says which commit that is. `snakemake
lock_revisions` asks the hub and writes the file.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from dpa.config.base import RepositoryKind, is_commit
from dpa.errors import InputError
from dpa.runtime.sections import read_value

#: The lock file, in the repository's root.
LOCK_FILE = "revisions.lock.yaml"


#: In place of a commit: the one in the lock file.
LOCKED = "locked"


#: The branch that an unlocked revision stands for where the configuration allows it.
BRANCH = "main"


HEADER = """\
# Commits of the hub repositories that experiments name with `revision: locked`, for all of them.
# Written by `snakemake lock_revisions`, which adds what is missing and keeps what is here: delete a
# line to ask the hub again. Commit this file with your results.
"""


class Lock(msgspec.Struct, forbid_unknown_fields=True):
    """Repository -> commit, for models and for data sets."""

    models: dict[str, str] = {}
    datasets: dict[str, str] = {}

    def commits(self, kind: RepositoryKind) -> dict[str, str]:
        """The part for models or for data sets, to read or to fill."""
        return self.models if kind == "model" else self.datasets


def read_lock(path: Path) -> Lock:
    """The lock file; empty when there is none. Raises InputError naming what is wrong in it."""
    if not path.exists():
        return Lock()
    try:
        lock = msgspec.convert(read_value(path) or {}, Lock)
    except (InputError, msgspec.ValidationError) as error:
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise InputError(f"{path}: {reason}; repair it or lock the revisions anew") from None
    for repository, commit in (*lock.models.items(), *lock.datasets.items()):
        if not is_commit(commit):
            raise InputError(
                f"{path}: {repository}: {commit!r} is not a commit of 40 hexadecimal digits; "
                "delete the line and run snakemake lock_revisions"
            )
    return lock


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock file, sorted, atomically."""
    import yaml

    from dpa.artefacts.outputs import replace_text

    parts = {
        kind: dict(sorted(commits.items()))
        for kind, commits in (("models", lock.models), ("datasets", lock.datasets))
    }
    replace_text(path, HEADER + yaml.safe_dump(parts, sort_keys=False))


def complete(lock: Lock, kind: RepositoryKind, repositories: Iterable[str]) -> list[str]:
    """Add the commits of those repositories that the lock lacks; returns these repositories."""
    known = lock.commits(kind)
    missing = [name for name in dict.fromkeys(repositories) if name not in known]
    for name in missing:
        known[name] = ask_hub(kind, name)
    return missing


def ask_hub(kind: RepositoryKind, repository: str) -> str:
    """The commit at the head of a hub repository. Raises InputError saying why there is none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.errors import HTTPError as ConnectionFailed  # type: ignore[attr-defined]

    what = f"{'data set' if kind == 'dataset' else kind} {repository}"
    try:
        commit = HfApi().repo_info(repository, repo_type=kind, timeout=60).sha
    except HFValidationError as error:
        raise InputError(f"{what}: not a hub id: {error}") from None
    except (ConnectionFailed, OSError) as error:
        raise InputError(
            f"{what}: the hub does not answer: {' '.join(str(error).split())}; check the name and "
            "that the hub can be reached from here (a private or gated repository needs `hf auth "
            "login` or HF_TOKEN)"
        ) from None
    if commit is None or not is_commit(commit):
        raise InputError(f"{what}: the hub gave {commit!r} in place of a commit")
    return commit
