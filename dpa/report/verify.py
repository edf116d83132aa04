"""Every artefact of an experiment against its sidecar: what is lost, changed or unaccounted for.

The whole folder is walked, so that nothing is trusted because a rule says it should be there. Each
file is hashed once, however many sidecars name it as an input. No torch here.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dpa.artefacts.closures import Modules, script_code
from dpa.artefacts.files import content_hash
from dpa.artefacts.jsonl import decode_lines
from dpa.artefacts.outputs import SIDECAR, sidecar_path
from dpa.artefacts.sidecars import read_sidecar
from dpa.errors import InputError
from dpa.records import (
    Annotation,
    Choice,
    JudgedSample,
    Pair,
    Prompt,
    Rating,
    Sample,
    ScoredChoice,
    ScoredSample,
    Selected,
    ToRate,
)
from dpa.runtime.reading import MAX_LIST, decode_json, read_document, read_json_object

#: What the lines of a JSONL file are, by its path below a run's folder; the first that fits.
RECORDS: tuple[tuple[str, Any], ...] = (
    ("*/data/raw/*", dict),  # in the schemas of other data sets
    ("*/data/ratings.jsonl", Rating),
    ("*/data/prompts/*", Prompt),
    ("*/feedback/*/to_rate.jsonl", ToRate),
    ("*/feedback/*/ratings.jsonl", Rating),
    ("*/annotations/*", Annotation),
    ("*/sampled/*", Sample),
    ("*/scored/*", ScoredSample),
    ("*/scored_by/*", ScoredSample),
    ("*/selected.jsonl", Selected),
    ("*/pairs.jsonl", Pair),
    ("*/kept.jsonl", Annotation),
    ("*/ric/originals.jsonl", Annotation),
    ("*/alpacaeval/prompts.jsonl", Prompt),
    ("*/rewardbench/prompts.jsonl", Prompt),
    ("*/rewardbench/items.jsonl", Choice),
    ("*/rewardbench/judged/*", JudgedSample),
    ("*/rewardbench/rewards.jsonl", ScoredChoice),
)
#: Folders of a run that hold no artefacts.
WITHOUT_SIDECARS = ("logs", "benchmarks")
#: What an experiment's artefacts are listed in (dpa.report.run_record).
RUN_RECORD = "provenance.json"
SHA256 = re.compile(r"[0-9a-f]{64}")


class Problem(NamedTuple):
    """What is wrong with an artefact, and what to do."""

    artefact: Path
    what: str

    def __str__(self) -> str:
        return f"{self.artefact}: {' '.join(self.what.split())}"


def artefacts_of(results: Path) -> Iterator[Path]:
    """Whatever has a sidecar or should have one, in the order of paths.

    A folder with a sidecar is one artefact. What a job has in hand (*.partial) is none.
    """
    named = {path.name for path in results.iterdir()}
    with_sidecar = {name.removesuffix(SIDECAR) for name in named if name.endswith(SIDECAR)}
    for name in sorted(with_sidecar | {name for name in named if not name.endswith(SIDECAR)}):
        path = results / name
        if name in with_sidecar:
            yield path
        elif ".partial" in name or name.startswith("."):
            continue
        elif not path.is_dir():
            yield path
        elif name not in WITHOUT_SIDECARS:
            yield from artefacts_of(path)


def record_type(path: Path) -> Any:
    """What the lines of a JSONL file of a run are; None where that is not known."""
    place = "/" + path.as_posix().lstrip("/")
    return next((type for pattern, type in RECORDS if fnmatchcase(place, pattern)), None)


def artefact_problems(
    results: Path, on_artefact: Callable[[], None] = lambda: None
) -> Iterator[Problem]:
    """Everything that is wrong below an experiment's folder; `on_artefact` is called after each.

    Inputs are as sidecars name them: relative to the working directory. An input that is gone is no
    problem, one that has other content than the artefact was made from is.
    """
    hashed = cache(content_hash)
    listed = _listed(results)
    for artefact in artefacts_of(results):
        by_record = listed.pop(artefact.relative_to(results).as_posix(), None)
        for what in _wrong_with(artefact, hashed, by_record):
            yield Problem(artefact, what)
        on_artefact()
    for name in sorted(listed):
        yield Problem(
            results / name, f"is not there, nor its sidecar, but {RUN_RECORD} lists it; rerun"
        )


def made_by_other_code(results: Path) -> list[Path]:
    """The artefacts of an experiment whose script computes its result otherwise now.

    That is no fault: with `rerun_on_code_change: false` finished work stays, whatever the code is.
    """
    modules = Modules()
    now = cache(lambda stage: script_code(stage, modules))
    found = []
    for artefact in artefacts_of(results):
        try:
            recorded = read_sidecar(artefact)
        except InputError:
            continue  # artefact_problems says it
        then, code = recorded.get("code"), now(str(recorded.get("stage")))
        if then is not None and code is not None and then != code:
            found.append(artefact)
    return found


def _listed(results: Path) -> dict[str, str]:
    """Artefacts and their hashes by the experiment's record, if it has one that can be read."""
    try:
        found = read_json_object(results / RUN_RECORD).get("artefacts")
        return msgspec.convert(found, dict[str, str])
    except (InputError, msgspec.ValidationError):
        return {}


@cache
def _tracked(folder: Path) -> frozenset[str]:
    """Names of the files in a folder that git tracks: a user's own, whatever lies beside them."""
    try:
        found = subprocess.run(
            ["git", "ls-files", "-z", "."], cwd=folder, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return frozenset()
    return frozenset(os.fsdecode(found.stdout).split("\0"))


def _wrong_with(
    artefact: Path, hashed: Callable[[Path], str | None], by_record: str | None
) -> Iterator[str]:
    sidecar = sidecar_path(artefact)
    again = f"delete it and {sidecar.name}, then rerun"
    if artefact.name in _tracked(artefact.parent.resolve()):
        again = "git tracks it: restore it with git, or move it out of the run's folder"
    if not sidecar.exists():
        remedy = again if again.startswith("git") else "delete it, then rerun"
        yield f"has no sidecar {sidecar.name}; {remedy}"
        return
    try:
        recorded_facts = read_sidecar(artefact)
        recorded, inputs = recorded_facts["sha256"], recorded_facts["inputs"]
        row_counts: Any = recorded_facts.get("counts")
        lost = row_counts and row_counts["read"] - row_counts["kept"] - sum(
            row_counts["dropped"].values()
        )
    except (InputError, KeyError) as error:
        yield f"its sidecar cannot be read ({error!r}); {again}"
        return
    if not artefact.exists():
        yield f"is not there, but its sidecar is; rerun with --forcerun {artefact}"
    elif hashed(artefact) != recorded:
        yield f"is not what was written (sha256 {hashed(artefact)}, recorded {recorded}); {again}"
    elif by_record not in (None, recorded):
        yield f"is another than {RUN_RECORD} lists; rerun"
    if artefact.suffix == ".jsonl" and artefact.is_file():
        yield from _wrong_records(artefact, recorded_facts, again)
    elif artefact.suffix == ".json" and artefact.is_file():
        try:
            decode_json(read_document(artefact, MAX_LIST), "it")
        except InputError as error:
            yield f"is no JSON ({error}); {again}"
    if lost:
        yield (
            f"its sidecar counts {row_counts['read']} rows as read, but {row_counts['kept']} as "
            f"kept and {row_counts['dropped']} as dropped; {again}"
        )
    for name, then in sorted(inputs.items()):
        now = hashed(Path(name)) if SHA256.fullmatch(str(then)) else None
        if now is not None and now != then:
            yield f"was made from another {name} (sha256 then {then}, now {now}); {again}"


def _wrong_records(artefact: Path, recorded_facts: dict, again: str) -> Iterator[str]:
    """Lines that are lost, added, or not records of the file's type."""
    type = record_type(artefact)
    if type is None:
        yield "what its records are is not known; name it in dpa.report.verify.RECORDS"
        return
    count = 0
    try:
        for _ in decode_lines(artefact, type, counted=False):
            count += 1
    except InputError as error:
        where = str(error).removeprefix(f"{artefact}:").strip()
        yield f"{'line ' if where[:1].isdigit() else ''}{where}; {again}"
        return
    if recorded_facts.get("records") != count:
        yield f"has {count} records, its sidecar counts {recorded_facts.get('records')}; {again}"
