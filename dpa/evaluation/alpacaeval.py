"""AlpacaEval 2's files: its instructions, outputs in its own JSON format, and the table of results.

The judging itself is in alpacaeval_judges; nothing here imports alpaca_eval or torch.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dpa.artefacts.jsonl import decode_lines, read_jsonl, write_jsonl
from dpa.artefacts.outputs import save_folder, write_text
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.data import SourceConfig, describe
from dpa.data.hub import alpacaeval_file
from dpa.data.sources import read_rows
from dpa.errors import InputError
from dpa.records import Prompt, Sample
from dpa.runtime.log import log
from dpa.runtime.reading import MAX_LIST, read_document
from dpa.text.prompts import normalise, prompt_id

#: Columns of results.csv that come from a judgement, in order.
RESULT_COLUMNS = (
    "win_rate",
    "standard_error",
    "avg_length",
    "length_controlled_win_rate",
    "length_controlled_reason",
    "n_total",
    "judge",
)


class Output(msgspec.Struct):
    """A row of an output file of AlpacaEval; keys that it has besides are left alone."""

    instruction: str
    output: str
    generator: str = "model"
    dataset: str = ""


def read_outputs(path: Path) -> list[Output]:
    """An output file of AlpacaEval. Raises InputError when it is missing, malformed, ambiguous."""
    try:
        rows = msgspec.json.decode(read_document(path, MAX_LIST), type=list[Output])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path}: not AlpacaEval's format (a JSON list of objects with instruction, output, "
            f"generator): {error}"
        ) from None
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if row.instruction in seen:
            raise InputError(
                f"{path}: row {number} has the instruction of an earlier row, "
                f"{row.instruction!r:.80}; keep one output per instruction"
            )
        seen.add(row.instruction)
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def write_outputs(path: Path, rows: Iterable[Output]) -> None:
    """Write an output file in AlpacaEval's format."""
    content = [msgspec.structs.asdict(row) for row in rows]
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


# --- Instructions ----------------------------------------------------------------------------


def prepare_alpacaeval(source: SourceConfig, expected: int, prompts: Path, reference: Path) -> None:
    """Write the instructions as prompts, and the reference outputs in AlpacaEval's format.

    A prompt's `source` is its AlpacaEval data set. Raises InputError unless there are `expected`
    different instructions.
    """
    path = Path(source.path) if source.revision is None else alpacaeval_file(source)
    if path.suffix == ".json":
        rows = read_outputs(path)
    else:
        rows = [
            msgspec.convert(row, Output)
            for row in read_rows(SourceConfig(path=str(path), revision=None, split=None))
        ]
    found = [
        Prompt(prompt_id=prompt_id(r.instruction), prompt=r.instruction, source=r.dataset)
        for r in rows
    ]
    if len(found) != expected:
        raise InputError(
            f"{path}: {len(found)} instructions, alpacaeval.prompts says {expected}; a part of "
            "them gives no AlpacaEval win rate"
        )
    if len({p.prompt_id for p in found}) < len(found):
        raise InputError(f"{path}: instructions must differ in more than white space")
    write_jsonl(prompts, found)
    write_outputs(reference, rows)
    write_sidecar(prompts, [describe(source)], RowCounts.all_kept(len(rows)))
    write_sidecar(
        reference, [describe(source)], RowCounts.all_kept(len(rows)), counted_in=prompts.name
    )
    log.info("%d instructions from %s", len(rows), describe(source))


# --- Outputs ---------------------------------------------------------------------------------


def export_outputs(sampled: Sequence[Path], prompts: Path, folder: Path) -> None:
    """Write a policy's samples as `<folder>/<policy>/<direction_index>.json`.

    A file's stem names its policy. Raises InputError when a prompt lacks an output.
    """
    order = read_jsonl(prompts, Prompt)
    written = 0

    def save(partial: Path) -> None:
        nonlocal written
        for path in sampled:
            outputs: dict[int, dict[str, str]] = {}
            for sample in decode_lines(path, Sample):
                outputs.setdefault(sample.direction_index, {})[sample.prompt_id] = sample.response
            for index, found in sorted(outputs.items()):
                if missing := [p for p in order if p.prompt_id not in found]:
                    raise InputError(
                        f"{path}: {len(missing)} of {len(order)} prompts have no output, the first "
                        f"is {normalise(missing[0].prompt)!r:.80}; they are longer than "
                        "sampling.max_prompt_tokens: raise it"
                    )
                generator = path.stem if index < 0 else f"{path.stem}/{index}"
                rows = [
                    Output(str(p.prompt), found[p.prompt_id], generator, p.source) for p in order
                ]
                write_outputs(partial / path.stem / f"{index}.json", rows)
                written += 1

    save_folder(folder, save)
    outputs = RowCounts.all_kept(written * len(order))
    write_sidecar(folder, [*sampled, prompts], outputs, files=written, prompts=len(order))
    log.info("%d output files of %d instructions each in %s", written, len(order), folder)


def output_files(path: Path) -> dict[str, Path]:
    """Output files by name: a file under its stem, a folder's by relative path without suffix."""
    if not path.is_dir():
        return {path.stem: path}
    found = {
        str(file.relative_to(path).with_suffix("")): file
        for file in sorted(path.rglob("*.json"))
        if not file.name.endswith(".meta.json")
    }
    if not found:
        raise InputError(f"{path}: no .json file here")
    return found


# --- Results ---------------------------------------------------------------------------------


def directions_of(sampled: Path) -> dict[int, list[float] | None]:
    """The direction of each direction index in a file of samples; None where there is none."""
    found: dict[int, list[float] | None] = {}
    for sample in decode_lines(sampled, Sample):
        found.setdefault(sample.direction_index, sample.direction)
    return found


def result_rows(
    judged: dict[str, dict[str, Any]], sampled: Sequence[Path], names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """The rows of results.csv for one seed: by policy, in order of the direction index."""
    from dpa.evaluation.validation import Policy

    rows = []
    for path in sampled:
        policy = Policy.parse(path.stem)
        for index, direction in sorted(directions_of(path).items()):
            result = judged[f"{path.stem}/{index}"]
            weights: Sequence[float | None] = direction or [None] * len(names)
            rows.append(
                {
                    "method": policy.method,
                    "iteration": policy.iteration,
                    "seed": seed,
                    "direction_index": index,
                    **{f"v_{name}": v for name, v in zip(names, weights, strict=True)},
                    **{column: result[column] for column in RESULT_COLUMNS},
                }
            )
    return rows
