"""provenance.json: what an experiment was made with, and what its stages read, kept and dropped.

Summed from the sidecars of everything in the experiment's folder: over shards, iterations,
methods and seeds. No wall-clock times: the same run gives the same bytes. No torch here.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dpa.artefacts.outputs import sidecar_path
from dpa.artefacts.sidecars import code_version, read_sidecar
from dpa.config.base import is_commit
from dpa.errors import InputError
from dpa.registry import METHODS
from dpa.report.verify import RUN_RECORD, Problem, artefacts_of
from dpa.runtime.reading import read_json_object

#: Whole numbers of sidecars that are sums themselves.
SUMS = (
    "cut", "duplicates", "neutralised", "records", "response_tokens", "responses", "scored",
    "truncated",
)  # fmt: skip
#: What every sidecar has.
SIDECAR_KEYS = {"sha256", "code_version", "config_hash", "packages", "inputs", "stage"}
#: Methods with a folder per fixed direction.
DIRECTED = [m.name for m in METHODS.values() if m.folders.endswith("per_direction")]
#: What tells artefacts of a kind apart: seed, iteration, fixed direction, shard or policy.
INSTANCES = (
    (r"^seed\d+/", ""),
    (r"/iter\d+/", "/iter*/"),
    (rf"(^|/)({'|'.join(DIRECTED)})/[\d_-]+/", r"\1\2/*/"),
    (
        r"((?:^|/)(?:annotations|sampled|scored|scored_by/[^/]+|judged)(?:/member\d+)?)/[^/]+\.jsonl$",
        r"\1/*.jsonl",
    ),
)


def kind_of(artefact: str) -> str:
    """An artefact's path below the experiment's folder, without what tells those of a kind apart.

    >>> kind_of("seed1/rsf/0_-100/iter3/scored/7.jsonl")
    'rsf/*/iter*/scored/*.jsonl'
    """
    for pattern, general in INSTANCES:
        artefact = re.sub(pattern, general, artefact)
    return artefact


def run_record(
    results: Path, experiment: str, config_hash: str, seeds: list[int]
) -> dict[str, Any]:
    """The content of provenance.json.

    `stages` has an entry for each script that made anything: its kinds of artefacts with their
    number, counts, and sums of further numbers. Where a job writes several artefacts from the same
    rows, only the one that the others name in `counted_in` is counted. Raises InputError for a
    sidecar that is missing or broken.
    """
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; run the experiment first")
    artefacts: dict[str, str] = {}
    stages: dict[str, dict[str, dict]] = {}
    seen: dict[str, set[str]] = {"code_versions": set(), "config_hashes": set()}
    packages: dict[str, set[str]] = {}
    commits: dict[str, str] = {}
    total = _Counts()
    for artefact, sidecar in _sidecars(results):
        if lacking := sorted(SIDECAR_KEYS - sidecar.keys()):
            raise InputError(
                f"{sidecar_path(results / artefact)}: no {', '.join(lacking)}; delete it and "
                f"{results / artefact}, then rerun"
            )
        artefacts[artefact] = sidecar["sha256"]
        seen["code_versions"].add(sidecar["code_version"])
        seen["config_hashes"].add(sidecar["config_hash"] or "")
        for name, version in sidecar["packages"].items():
            packages.setdefault(name, set()).add(version)
        commits |= _commits(sidecar["inputs"])
        kind = stages.setdefault(sidecar["stage"], {}).setdefault(
            kind_of(artefact), {"artefacts": 0, "counts": {}}
        )
        kind["artefacts"] += 1
        for name in SUMS:
            if isinstance(sidecar.get(name), int):
                kind[name] = kind.get(name, 0) + sidecar[name]
        if "counted_in" not in sidecar:
            for name, counts in _countings(sidecar):
                kind["counts"].setdefault(name, _Counts()).add(counts)
                total.add(counts)
    for kinds in stages.values():
        for kind in kinds.values():
            kind["counts"] = {name: counts.as_dict() for name, counts in kind["counts"].items()}
    return {
        "experiment": experiment,
        "config_hash": config_hash,
        "base_seeds": seeds,
        "code_version": code_version(),
        "made_by": {name: sorted(values - {""}) for name, values in seen.items()},
        "packages": {name: sorted(versions) for name, versions in packages.items()},
        "commits": commits,
        "stages": stages,
        "without_counts": sorted(
            stage for stage, kinds in stages.items() if not any(k["counts"] for k in kinds.values())
        ),
        "total": total.as_dict(),
        "artefacts": artefacts,
    }


def count_problems(results: Path) -> Iterator[Problem]:
    """Where provenance.json sums other counts than the sidecars of the same artefacts say."""
    record = results / RUN_RECORD
    try:
        recorded: Any = read_json_object(record).get("stages")
        now = run_record(results, "", "", [])["stages"]
    except InputError:
        return  # there is none, or it or a sidecar is broken: artefact_problems says so
    for stage, kinds in now.items():
        for kind, facts in kinds.items():
            try:
                before = recorded[stage][kind]
                if before["artefacts"] == facts["artefacts"] and before != facts:
                    told = f"says {before} of {kind} ({stage}), the sidecars say {facts}; rerun"
                    yield Problem(record, told)
            except (KeyError, TypeError):
                continue  # made since, or no record of ours


def differences(run: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    """A line for each kind of artefact (path -> SHA-256) that is not the same in two runs."""
    kinds: dict[str, list[str]] = {}
    for artefact in sorted({*run, *other}):
        if run.get(artefact) != other.get(artefact):
            kinds.setdefault(kind_of(artefact), []).append(artefact)
    for kind, found in kinds.items():
        missing = [artefact for artefact in found if artefact not in run or artefact not in other]
        what = "in one run only" if missing else "differ"
        yield f"{kind}: {len(missing or found)} {what}: {', '.join(missing or found)}"


class _Counts:
    """Sums of read / kept / dropped by reason."""

    def __init__(self) -> None:
        self.read = self.kept = 0
        self.dropped: Counter[str] = Counter()

    def add(self, counts: Mapping[str, Any]) -> None:
        self.read += counts["read"]
        self.kept += counts["kept"]
        self.dropped.update(counts["dropped"])

    def as_dict(self) -> dict[str, Any]:
        lost = {reason: n for reason, n in sorted(self.dropped.items()) if n}
        return {"read": self.read, "kept": self.kept, "dropped": lost}


def _sidecars(results: Path) -> Iterator[tuple[str, dict]]:
    for artefact in artefacts_of(results):
        # The record says nothing of itself; strays, file or sidecar, are verify's business.
        if artefact == results / RUN_RECORD or not artefact.exists():
            continue
        if sidecar_path(artefact).exists():
            yield artefact.relative_to(results).as_posix(), read_sidecar(artefact)


def _countings(sidecar: dict) -> Iterator[tuple[str, dict]]:
    """Each read / kept / dropped of a sidecar: `counts`, and those that have other names."""
    for name, value in sidecar.items():
        if isinstance(value, dict) and value.keys() == {"read", "kept", "dropped"}:
            yield ("rows" if name == "counts" else name), value


def _commits(inputs: Mapping[str, str | None]) -> dict[str, str]:
    """Commits of the hub repositories among the inputs."""
    found = {}
    for name, value in inputs.items():
        repository, at, revision = name.rpartition("@")
        if at and is_commit(revision):
            found[repository] = revision
        elif value and is_commit(value):
            found[name] = value
    return found
