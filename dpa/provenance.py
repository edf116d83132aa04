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
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dpa
from dpa.errors import InputError, writing

PACKAGES = ("torch", "transformers", "trl", "vllm", "datasets", "numpy", "snakemake")

#: How a run tells its jobs what to write into sidecars. Environment variables, because as rule
#: parameters they would make every rule rerun whenever any key of the configuration changes.
CONFIG_HASH, BASE_SEED = "DPA_CONFIG_HASH", "DPA_BASE_SEED"
COMMITS = "DPA_COMMITS"
#: In the same way limits and the list of trusted models, which change no result.
LIMITS = {
    "max_dropped_fraction": "DPA_MAX_DROPPED_FRACTION",
    "max_truncated_fraction": "DPA_MAX_TRUNCATED_FRACTION",
}
TRUSTED = "DPA_TRUST_REMOTE_CODE"


def announce_run(
    config_hash: str,
    seed: int | list[int],
    commits: dict[str, str] | None = None,
    *,
    limits: dict[str, float],
    trusted: Iterable[str],
) -> None:
    """Hand what concerns the whole run to all jobs started from here.

    For sidecars the config hash, the base seed, and the commits of the hub repositories it uses.
    """
    os.environ[CONFIG_HASH] = config_hash
    os.environ[BASE_SEED] = str(seed)
    os.environ[COMMITS] = json.dumps(commits or {})
    for name, variable in LIMITS.items():
        os.environ[variable] = str(limits[name])
    os.environ[TRUSTED] = " ".join(trusted)


def _limit(name: str) -> float:
    """A limit of the run; none for a script that is run by hand."""
    return float(os.environ.get(LIMITS[name], 1))


def check_dropped(losses: "Losses", what: str) -> None:
    """Raise InputError when a stage drops more rows than the run's limit allows.

    write_sidecar does it too; a stage that is about to do something long does it before.
    """
    losses.check(_limit("max_dropped_fraction"), what, "limits.max_dropped_fraction")


def check_truncated(cut: int, texts: int, what: str) -> None:
    """Raise InputError when a stage cuts more texts than the run's limit allows."""
    limit = _limit("max_truncated_fraction")
    if cut > limit * texts:
        raise InputError(
            f"{what}: {cut} of {texts} texts were cut to what the model holds, more than the "
            f"allowed share {limit}; use a model or a max_length that holds more, or raise "
            "limits.max_truncated_fraction"
        )


#: What a sidecar's name adds to its artefact's.
SIDECAR = ".meta.json"
#: Snakemake's mark in a folder that it knows as an output: no content.
TIMESTAMP = ".snakemake_timestamp"
#: Bytes that are read at a time.
BLOCK = 1 << 20


class Losses:
    """Rows read, kept and dropped by reason: no row goes missing without a name for it."""

    def __init__(self) -> None:
        self.read = 0
        self.dropped: Counter[str] = Counter()
        self.asked_for: Counter[str] = Counter()

    @classmethod
    def none(cls, rows: int) -> "Losses":
        """So many rows read, and all of them kept."""
        losses = cls()
        losses.read = rows
        return losses

    @property
    def kept(self) -> int:
        return self.read - self.dropped.total()

    def drop(self, reason: str, asked_for: bool = False, rows: int = 1) -> None:
        """Count dropped rows; `asked_for` if they are meant to be (a filter)."""
        if not rows:
            return
        self.dropped[reason] += rows
        if asked_for:
            self.asked_for[reason] += rows

    def check(self, limit: float, what: str, key: str = "data.max_dropped_fraction") -> None:
        """Raise InputError when a larger share than `limit` was dropped without being asked for."""
        lost = self.dropped - self.asked_for
        rows = self.read - self.asked_for.total()
        if lost.total() > limit * rows:
            raise InputError(
                f"{what}: dropped {lost.total()} of {rows} rows "
                f"({dict(lost)}), more than the allowed share {limit}; "
                f"repair the data or raise {key}"
            )

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        return f"read {self.read}, kept {self.kept}" + (f", dropped {reasons}" if reasons else "")

    def as_dict(self) -> dict:
        return {"read": self.read, "kept": self.kept, "dropped": dict(sorted(self.dropped.items()))}


def sidecar_path(artefact: Path) -> Path:
    """`<artefact>.meta.json`, for files and folders alike."""
    return artefact.with_name(artefact.name + SIDECAR)


def write_sidecar(
    artefact: Path,
    inputs: Iterable[Path | str] = (),
    losses: Losses | None = None,
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


def content_hash(path: Path) -> str | None:
    """SHA-256 of a file, or of a folder's sorted (name, hash) pairs; None if there is none.

    The mark that Snakemake leaves in a folder is not counted: it comes behind the sidecar.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != TIMESTAMP):
            digest.update(f"{file.relative_to(path)} {content_hash(file)}\n".encode())
        return digest.hexdigest()
    if not path.is_file():
        return None
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def hash_and_lines(path: Path) -> tuple[str, int]:
    """SHA-256 of a file, and how many lines it has, in one reading."""
    digest, lines = hashlib.sha256(), 0
    with open(path, "rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
            lines += block.count(b"\n")
    return digest.hexdigest(), lines


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


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def atomic(path: Path):
    """A temporary path beside `path`, moved into place when the block succeeds."""
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def save_folder(path: Path, save: Callable[[Path], None]) -> None:
    """Let `save` fill a folder, and move it into place when it is complete."""
    import shutil

    partial = path.with_name(path.name + ".partial")
    with writing(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save(partial)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
