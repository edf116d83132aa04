"""Sidecars: beside each artefact a small JSON file that says how it came to be.

`<artefact>.meta.json` holds code version, config hash, base seed, package versions, input hashes,
the artefact's own hash, and read / kept / dropped counts by reason. No wall-clock times: the same
run writes the same sidecar.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dpa
from dpa.artefacts.files import content_hash, hash_and_lines, write_text
from dpa.artefacts.row_counts import RowCounts, check_dropped
from dpa.errors import InputError
from dpa.runtime.run_environment import BASE_SEED, COMMITS, CONFIG_HASH

PACKAGES = ("torch", "transformers", "trl", "vllm", "datasets", "numpy", "snakemake")


#: What a sidecar's name adds to its artefact's.
SIDECAR = ".meta.json"


def sidecar_path(artefact: Path) -> Path:
    """`<artefact>.meta.json`, for files and folders alike."""
    return artefact.with_name(artefact.name + SIDECAR)


def write_sidecar(
    artefact: Path,
    inputs: Iterable[Path | str] = (),
    losses: RowCounts | None = None,
    *,
    content: Path | None = None,
    **details: Any,
) -> None:
    """Write the artefact's sidecar: of files and folders among `inputs` their hash, of hub ids the
    commit. `content` is where the artefact is, if it is not in its place yet.

    Raises InputError instead when `losses` exceed the run's limit.
    """
    if losses:
        check_dropped(losses, str(artefact))
    sha256: str | None
    if artefact.suffix == ".jsonl":
        sha256, details["records"] = hash_and_lines(artefact)
    else:
        sha256 = content_hash(content or artefact)
    commits = json.loads(os.environ.get(COMMITS, "{}"))
    sidecar = {
        "artefact": artefact.name,
        "stage": Path(sys.argv[0]).stem,
        "sha256": sha256,
        "code_version": code_version(),
        "config_hash": os.environ.get(CONFIG_HASH),
        "base_seed": os.environ.get(BASE_SEED),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "inputs": {
            str(item): content_hash(Path(item)) or commits.get(str(item)) for item in inputs
        },
        **({"counts": losses.as_dict()} if losses else {}),
        **details,
    }
    write_text(sidecar_path(artefact), json.dumps(sidecar, indent=1, sort_keys=True) + "\n")


def read_sidecar(artefact: Path) -> dict:
    """The artefact's sidecar. Raises InputError when it is missing or broken."""
    path = sidecar_path(artefact)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such sidecar; rerun the rule that makes {artefact}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: {error}; rerun the rule that makes {artefact}") from None


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


def fingerprint(*parts: Any) -> str:
    """Hash of whatever determines a file's content (JSON values), for ChunkedWriter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
