"""Sidecars: beside each artefact a small JSON file that says how it came to be.

`<artefact>.meta.json` holds code version, config hash, base seed, package versions, input hashes,
the artefact's own hash and size, and read / kept / dropped counts by reason. No wall-clock times:
the same run writes the same sidecar.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import msgspec

import dpa
from dpa.artefacts.closures import file_key, running_code
from dpa.artefacts.files import CARD, content_hash, files_in, folder_hash, hash_and_lines
from dpa.artefacts.outputs import Fingerprint, finish, replace_text, sidecar_path, stage
from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.errors import InputError
from dpa.runtime.reading import read_json_object
from dpa.runtime.run_environment import RunEnvironment

PACKAGES = ("torch", "transformers", "trl", "vllm", "datasets", "numpy", "snakemake")


class Counts(TypedDict):
    """Rows that a stage read, kept, and dropped by reason."""

    read: int
    kept: int
    dropped: dict[str, int]


class Sidecar(TypedDict, total=False):
    """What code relies on in a sidecar; stages add keys of their own."""

    artefact: str
    stage: str
    sha256: str | None
    code: str
    code_version: str
    config_hash: str | None
    packages: dict[str, str]
    card: str
    inputs: dict[str, str | None]
    counts: Counts
    records: int
    responses: int
    response_tokens: int
    scored: int


def write_sidecar(
    artefact: Path,
    inputs: Iterable[Path | str] = (),
    row_counts: RowCounts | None = None,
    *,
    content: Path | None = None,
    **details: Any,
) -> None:
    """Write the artefact's sidecar: of files and folders among `inputs` their hash, of hub ids the
    commit. `content` is where the artefact is, if it is not in its place yet.

    Raises InputError instead when `row_counts` exceed the run's limit.
    """
    if row_counts:
        check_dropped(row_counts, str(artefact))
    sha256: str | None
    if artefact.suffix == ".jsonl":
        sha256, details["records"] = hash_and_lines(artefact)
    else:
        sha256 = content_hash(content or artefact)
    commits = RunEnvironment.read().commits
    card = (content or artefact) / CARD
    sidecar = {
        "artefact": artefact.name,
        "sha256": sha256,
        **({"card": content_hash(card)} if card.is_file() else {}),
        "bytes": _size(content or artefact),
        "code": code_hash(),
        **made_by(),
        "inputs": {str(item): known_hash(Path(item)) or commits.get(str(item)) for item in inputs},
        **({"counts": row_counts.as_dict()} if row_counts else {}),
        **details,
    }
    replace_text(sidecar_path(artefact), json.dumps(sidecar, indent=1, sort_keys=True) + "\n")
    if content is None:
        finish(artefact)


def read_sidecar(artefact: Path) -> dict:
    """The artefact's sidecar. Raises InputError when it is missing or broken."""
    path = sidecar_path(artefact)
    if not path.exists():
        raise InputError(f"{path}: no such sidecar; delete {artefact}, then rerun")
    try:
        found = read_json_object(path)
        msgspec.convert(found, Sidecar)
    except (InputError, msgspec.ValidationError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: {why}; delete it and {artefact}, then rerun") from None
    return found


def made_by() -> dict[str, Any]:
    """What makes artefacts in this process: of a sidecar, what holds for all of them."""
    run = RunEnvironment.read()
    return {
        "stage": stage(),
        "code_version": code_version(),
        "config_hash": run.config_hash,
        "base_seed": run.base_seed,
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
    }


@cache
def code_hash() -> str:
    """The running script's closure of code, of which content stamps know the modules."""
    return running_code(dict(_stamped_hashes()))


@cache
def code_version() -> str:
    """Package version, and the git commit where there is one."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return dpa.__version__
    return f"{dpa.__version__}+{described}"


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# --- What is known of inputs -----------------------------------------------------------------

#: Hashes of files by `file_key`, which content stamps (dpa.workflow.stamps) keep.
HASHES = Path("results/.stamps/hashes.json")
#: What this process has hashed.
_hashed: dict[str, str] = {}


def known_hash(path: Path) -> str | None:
    """`content_hash` of an input, which is read only where nothing knows it: a model has 29 GB.

    Known are an artefact as its sidecar found it, what content stamps have hashed, and what this
    process has. Only `verify` reads all of it.
    """
    if (recorded := _recorded_hash(path)) is not None:
        return recorded
    if path.is_dir():
        return folder_hash(path, known_hash)
    if not path.is_file():
        return None
    key = file_key(path)
    if key not in _hashed:
        stamped = _stamped_hashes().get(key)
        _hashed[key] = stamped if isinstance(stamped, str) else str(content_hash(path))
    return _hashed[key]


def _recorded_hash(path: Path) -> str | None:
    """The hash in an artefact's sidecar, if all files are older than it, and of the same size.

    A file is as new as its last change of any kind (ctime): a copy that keeps older times is new.
    """
    try:
        written = sidecar_path(path).stat().st_mtime_ns
        if max(file.stat().st_ctime_ns for file in files_in(path)) >= written:
            return None
        sidecar = read_sidecar(path)
        return sidecar["sha256"] if sidecar["bytes"] == _size(path) else None
    except (OSError, ValueError, KeyError):
        return None


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in files_in(path))


@cache
def _stamped_hashes() -> dict[str, Any]:
    try:
        return read_json_object(HASHES)
    except InputError:
        return {}


# --- Partial results -------------------------------------------------------------------------


def fingerprint(inputs: Iterable[Path | str], **settings: Any) -> Fingerprint:
    """What a stage's result depends on, so that a part of it is known after a kill.

    The running script's code closure, packages, `inputs` (files and folders by content, all else by
    name) and `settings` (JSON values).
    """
    versions = {name: installed(name) for name in (*PACKAGES, "accelerate", "peft")}
    return {
        "code": code_hash(),
        "packages": _digest(versions),
        "inputs": _digest([[str(item), known_hash(Path(item))] for item in inputs]),
        "settings": _digest(settings),
    }


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
