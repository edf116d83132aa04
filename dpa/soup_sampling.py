"""Sampling Reward Soup: one interpolated policy after another, on all prompts."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dpa.cli import Progress
from dpa.config import Sampling
from dpa.directions import Direction
from dpa.errors import InputError
from dpa.provenance import Losses, content_hash, read_sidecar, sidecar_path, write_sidecar
from dpa.records import Sample, decode_lines, write_jsonl
from dpa.sampling import EVALUATION, Steering, always, sample_file
from dpa.soup import interpolate, soup_weights


def sample_soups(
    output: Path,
    *,
    experts: Sequence[Path],
    directions: Sequence[Direction],
    prompts: Path,
    samples: int,
    sampling: Sampling,
    seed: int,
) -> None:
    """Sample the soup of each direction on all prompts, and write one file of Samples.

    Policies are not told the direction; the records name the one they were interpolated for. At any
    time one interpolated checkpoint exists, so that disk holds k + 1 models at most. A killed run
    keeps the directions that are done.
    """
    for expert in experts:
        if not expert.is_dir():
            raise InputError(f"{expert}: no such folder; train the expert first")
    known = [content_hash(expert) for expert in experts], sampling.model_dump(), samples, seed
    digest = hashlib.sha256(json.dumps([*known, content_hash(prompts)]).encode()).hexdigest()[:12]
    work = output.with_name(f"{output.stem}.{digest}.partial")
    work.mkdir(parents=True, exist_ok=True)
    parts = [work / f"{i}.jsonl" for i in range(len(directions))]
    progress = Progress(len(parts), "soups")
    for i, (direction, part) in enumerate(zip(directions, parts, strict=True)):
        if not (part.exists() and sidecar_path(part).exists()):
            checkpoint = work / "checkpoint"
            interpolate(experts, soup_weights(direction), checkpoint)
            sample_file(
                part,
                policy=checkpoint,
                prompts=prompts,
                steer=always([Steering(i, samples=samples)]),
                names=[],
                sampling=sampling,
                seed=seed,
                iteration=EVALUATION,
            )
            shutil.rmtree(checkpoint)
        progress.advance(1)

    def directed() -> Iterator[Sample]:
        for direction, part in zip(directions, parts, strict=True):
            for record in decode_lines(part, Sample):
                yield msgspec.structs.replace(record, direction=direction)

    responses = write_jsonl(output, directed())
    told = [read_sidecar(part) for part in parts]
    write_sidecar(
        output,
        [*experts, prompts],
        _prompts_of(told[0]),  # every soup is asked the same
        responses=responses,
        truncated=sum(part["truncated"] for part in told),
        response_tokens=sum(part["response_tokens"] for part in told),
        neutralised=told[0]["neutralised"],
        soups=len(parts),
    )
    shutil.rmtree(work)


def _prompts_of(sidecar: dict) -> Losses:
    """The prompts that a sidecar counts."""
    losses = Losses.none(sidecar["counts"]["read"])
    for reason, rows in sidecar["counts"]["dropped"].items():
        losses.drop(reason, rows=rows)
    return losses
