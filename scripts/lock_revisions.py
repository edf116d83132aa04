"""Ask the hub for the commits of models and data sets, and write them to revisions.lock.yaml.

Rule: lock_revisions. Example:

    python -m scripts.lock_revisions --hub-model mistralai/Mistral-7B-v0.1 \
        --hub-dataset nvidia/HelpSteer
    python -m scripts.lock_revisions --check

Commits that the lock file has stay as they are. The only command that asks which commit is the
newest: needs the hub, and a token (HF_TOKEN or `hf auth login`) for private repositories. With
--check the commits of the file are compared with the hub: those that it has are marked as verified,
those that it does not have are an error, and what cannot be asked is a warning.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    hub_model: Annotated[list[str] | None, typer.Option(help="Hub id of a model.")] = None,
    hub_dataset: Annotated[list[str] | None, typer.Option(help="Hub id of a data set.")] = None,
    lock_file: Annotated[Path, typer.Option(help="The file to complete.")] = Path(
        "revisions.lock.yaml"
    ),
    check: Annotated[
        bool, typer.Option("--check", help="Compare all commits of the file with the hub.")
    ] = False,
) -> None:
    """Ask the hub for commits, and write them to the lock file."""
    from dpa.config.base import RepositoryKind
    from dpa.config.revisions import check_lock, complete, read_lock, write_lock
    from dpa.errors import InputError

    lock = read_lock(lock_file)
    asked: dict[RepositoryKind, list[str]] = {
        "model": hub_model or [],
        "dataset": hub_dataset or [],
    }
    for kind, names in asked.items():
        added = complete(lock, kind, names)
        for name in dict.fromkeys(names):
            state = "locked at" if name in added else "already locked at"
            log.info("%s %s: %s %s", kind, name, state, lock.commits(kind)[name])
    wrong, unasked = check_lock(lock) if check else ([], [])
    write_lock(lock_file, lock)
    for line in unasked:
        log.warning("not verified: %s", line)
    if wrong:
        raise InputError(f"{lock_file}: {len(wrong)} are wrong:\n" + "\n".join(wrong))
    for kind, name in sorted(lock.unverified):
        log.info("%s %s: its commit has not been compared with the hub (--check)", kind, name)
    log.info("%s has %d repositories", lock_file, len(lock.models) + len(lock.datasets))


if __name__ == "__main__":
    run_app(app)
