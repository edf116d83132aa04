"""Rewarded Soup: the weighted average of policies, tensor by tensor (Rame et al., 2023).

One expert is trained per objective (arXiv 2306.04488), or at each end of an arc of directions; a
direction v is served by the average of their weights, here with the shares a_i / sum a by which v
is the sum of a_i times the experts' directions. For experts of single objectives, which are trained
against one whose weight is negative, that is |v_i| / sum |v|. A soup is a plain checkpoint
folder, made on demand: it needs the memory of one output shard, not that of the experts.
"""

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dpa.artefacts.jsonl import decode_lines, write_jsonl
from dpa.artefacts.outputs import claimed, save_folder, sidecar_path
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import fingerprint, read_sidecar, write_sidecar
from dpa.config.chat import ModelsConfig
from dpa.config.sampling import SamplingConfig
from dpa.directions import Direction
from dpa.errors import InputError
from dpa.generation.sample import EVALUATION, Steering, always, sample_file
from dpa.records import Sample
from dpa.runtime.log import Progress
from dpa.runtime.reading import read_json_object

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


#: Weights in other formats, which a soup does not take over from its first expert.
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


#: What may differ between experts without changing what a tensor means.
INCIDENTAL = ("_name_or_path", "transformers_version", "use_cache")


#: Numbers that can be averaged (safetensors' names). Quantised weights cannot.
FLOATS = ("F32", "F16", "BF16")


#: How far the weights' sum may be from 1.
SHARE_TOLERANCE = 1e-6


def soup_weights(direction: Sequence[float], experts: Sequence[Direction]) -> list[float]:
    """Each expert's share in the soup for a direction, which sum to 1; `experts` are theirs.

    A direction beyond the experts' takes nothing from one that leads away from it.

    >>> soup_weights([0.6, -0.2], [[1, 0], [0, -1]])
    [0.75, 0.25]
    """
    if len(direction) != len(experts):
        raise InputError(f"{len(experts)} experts for {len(direction)} objectives; give one each")
    parts = [max(0.0, float(a)) for a in np.linalg.solve(np.transpose(experts), direction)]
    total = sum(parts)
    if not math.isfinite(sum(direction)) or total == 0:
        raise InputError(f"direction {list(direction)} weighs no expert; give a unit vector")
    return [a / total for a in parts]


def interpolate(experts: Sequence[Path], weights: Sequence[float], output: Path) -> None:
    """A checkpoint folder whose tensors are the weighted averages of the experts' tensors.

    Averages are computed in float32 and stored in the experts' dtype, in the shards of the first
    expert; all other files (configurations, tokenizer, chat template) are the first expert's. A
    weight of 1 gives that expert's tensors bit for bit. Raises InputError when the weights are not
    a share for each expert, or when the experts are not safetensors checkpoints that differ in
    nothing but the numbers in their tensors.
    """
    _check_weights(weights, len(experts))
    layouts = [_layout(expert) for expert in experts]
    for expert, layout in zip(experts[1:], layouts[1:], strict=True):
        _check_alike(experts[0], layouts[0], expert, layout)
    used = [(layout, w) for layout, w in zip(layouts, weights, strict=True) if w > 0]

    def write(folder: Path) -> None:
        ignore = shutil.ignore_patterns(*WEIGHTS)
        shutil.copytree(experts[0], folder, ignore=ignore, dirs_exist_ok=True)
        shards: dict[str, list[str]] = {}
        for name, tensor in layouts[0].items():
            shards.setdefault(tensor.file.name, []).append(name)
        for shard, names in shards.items():
            save_file(_average(used, names), folder / shard, metadata={"format": "pt"})

    save_folder(output, write)


class Stored(NamedTuple):
    """Where a tensor is, and what it is."""

    file: Path
    shape: list[int]
    dtype: str


TensorLayout = dict[str, Stored]


def _check_weights(weights: Sequence[float], experts: int) -> None:
    if len(weights) != experts or not experts:
        raise InputError(f"{len(weights)} weights for {experts} experts; give one weight for each")
    # Negated, so that NaN fails too.
    if not (all(w >= 0 for w in weights) and abs(sum(weights) - 1) <= SHARE_TOLERANCE):
        raise InputError(
            f"soup weights {list(weights)} are not shares: make them non-negative with sum 1"
        )


def _layout(expert: Path) -> TensorLayout:
    """The expert's tensors by name, read from the headers of its safetensors files."""
    index = expert / INDEX
    if index.is_file():
        listed = _read_json(index).get("weight_map", {})
        files = sorted({expert / file for file in listed.values()})
    elif (expert / SINGLE).is_file():
        listed, files = None, [expert / SINGLE]
    else:
        raise InputError(
            f"{expert}: has neither {SINGLE} nor {INDEX}; save the checkpoint with transformers' "
            "save_pretrained, which writes safetensors"
        )
    layout: TensorLayout = {}
    for file in files:
        with _opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                part = tensors.get_slice(name)
                layout[name] = Stored(file, part.get_shape(), part.get_dtype())
                if layout[name].dtype not in FLOATS:
                    raise InputError(
                        f"{file}: {name} is {layout[name].dtype}, which cannot be averaged; save "
                        "the expert in float32, float16 or bfloat16"
                    )
    if listed is not None and set(listed) != set(layout):
        raise InputError(
            f"{index}: does not list the tensors that are in its files "
            f"({_some(set(listed) ^ set(layout))}); save the checkpoint again"
        )
    return layout


def _check_alike(first: Path, ours: TensorLayout, other: Path, theirs: TensorLayout) -> None:
    """Raise InputError unless the two experts differ in nothing but their tensors' numbers."""
    remedy = "fine-tune all experts from the same policy"
    configs = [_comparable(path / "config.json") for path in (first, other)]
    if keys := {k for c in configs for k in c if configs[0].get(k) != configs[1].get(k)}:
        raise InputError(
            f"{other}/config.json: {_some(keys)} differ from {first}/config.json; {remedy}"
        )
    if _vocabulary(first) != _vocabulary(other):
        raise InputError(
            f"{other}/tokenizer.json: tokens differ from {first}/tokenizer.json; {remedy}"
        )
    if names := set(ours) ^ set(theirs):
        raise InputError(f"{other}: has not the tensors of {first} ({_some(names)}); {remedy}")
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape or tensor.dtype != theirs[name].dtype:
            raise InputError(
                f"{theirs[name].file}: {name} is {theirs[name].dtype} {theirs[name].shape}, in "
                f"{first} it is {tensor.dtype} {tensor.shape}; {remedy}, and save them alike"
            )


def _comparable(path: Path) -> dict[str, Any]:
    return {key: value for key, value in _read_json(path).items() if key not in INCIDENTAL}


def _vocabulary(expert: Path) -> Any:
    """The expert's tokens and their numbers, or None without a fast tokenizer."""
    path = expert / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = _read_json(path)
    return tokenizer.get("model"), tokenizer.get("added_tokens")


def _average(used: list[tuple[TensorLayout, float]], names: list[str]) -> dict[str, torch.Tensor]:
    """The averages of the named tensors; of the experts, one tensor at a time is in memory."""
    averages = {}
    with ExitStack() as stack:
        files = {layout[name].file for layout, _ in used for name in names}
        tensors = {file: stack.enter_context(_opened(file)) for file in sorted(files)}
        for name in names:
            parts = ((tensors[layout[name].file].get_tensor(name), w) for layout, w in used)
            averages[name] = _weighted(parts) if len(used) > 1 else next(parts)[0]
    return averages


def _weighted(parts: Iterable[tuple[torch.Tensor, float]]) -> torch.Tensor:
    """The weighted sum, computed in float32."""
    total: torch.Tensor | None = None
    for tensor, weight in parts:
        if total is None:
            total = tensor.float() * weight
        else:
            total.add_(tensor.float(), alpha=weight)
    assert total is not None
    return total.to(tensor.dtype)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file, of which tensors are read when asked for."""
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: {error}; copy or save the checkpoint again") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except InputError as error:
        raise InputError(f"{error}; copy or save the checkpoint again") from None


def _some(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def sample_soups(
    output: Path,
    *,
    experts: Sequence[Path],
    expert_directions: Sequence[Direction],
    directions: Sequence[Direction],
    prompts: Path,
    samples: int,
    sampling: SamplingConfig,
    seed: int,
    models: ModelsConfig | None = None,
) -> None:
    """Sample the soup of each direction on all prompts, and write one file of Samples.

    `expert_directions` are what the experts optimise. Policies are not conditioned on the
    direction; the records name the one they were interpolated for. At any time one interpolated
    checkpoint exists, so that disk holds k + 1 models at most. A killed run
    keeps the directions that are done.
    """
    for expert in experts:
        if not expert.is_dir():
            raise InputError(f"{expert}: no such folder; train the expert first")
    known = fingerprint(
        [*experts, prompts],
        directions=[list(direction) for direction in directions],
        expert_directions=[list(direction) for direction in expert_directions],
        sampling=sampling.model_dump(),
        samples=samples,
        seed=seed,
        models=None if models is None else models.model_dump(mode="json"),
    )
    with claimed(output) as mine:
        mine.resume(known)
        work = mine.folder()
        parts = [work / f"{i}.jsonl" for i in range(len(directions))]
        progress = Progress(len(parts), "soups")
        for i, (direction, part) in enumerate(zip(directions, parts, strict=True)):
            if not (part.exists() and sidecar_path(part).exists()):
                checkpoint = work / "checkpoint"
                interpolate(experts, soup_weights(direction, expert_directions), checkpoint)
                sample_file(
                    part,
                    policy=checkpoint,
                    prompts=prompts,
                    steer=always([Steering(i, samples=samples)]),
                    names=[],
                    sampling=sampling,
                    seed=seed,
                    iteration=EVALUATION,
                    models=models,
                )
                shutil.rmtree(checkpoint)
            progress.advance(1)

        def directed() -> Iterator[Sample]:
            for direction, part in zip(directions, parts, strict=True):
                for record in decode_lines(part, Sample):
                    yield msgspec.structs.replace(record, direction=direction)

        finished = work / "all.jsonl"
        responses = write_jsonl(finished, directed())
        mine.put_in_place(finished)
        sidecars = [read_sidecar(part) for part in parts]
        write_sidecar(
            output,
            [*experts, prompts],
            _counts_of_prompts(sidecars[0]),  # every soup has the same prompts
            responses=responses,
            truncated=sum(part["truncated"] for part in sidecars),
            response_tokens=sum(part["response_tokens"] for part in sidecars),
            neutralised=sidecars[0]["neutralised"],
            models=sidecars[0]["models"],
            bos_added=sidecars[0]["bos_added"],
            soups=len(parts),
        )


def _counts_of_prompts(sidecar: dict) -> RowCounts:
    """The prompts that a sidecar counts."""
    row_counts = RowCounts.all_kept(sidecar["counts"]["read"])
    for reason, rows in sidecar["counts"]["dropped"].items():
        row_counts.drop(reason, rows=rows)
    return row_counts
