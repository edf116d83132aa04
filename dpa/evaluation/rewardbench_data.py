"""RewardBench's rows and prompts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dpa.artefacts.jsonl import write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.benchmarks import BenchmarkSectionConfig
from dpa.config.data import SourceConfig, describe
from dpa.data.sources import as_prompt, as_response, cell, read_placed_rows
from dpa.errors import InputError
from dpa.records import Choice, Prompt
from dpa.runtime.log import log
from dpa.text.prompts import prompt_id

Sections = Sequence[BenchmarkSectionConfig]


def subsets_of(sections: Sections) -> dict[str, int]:
    """Number of prompts of each subset."""
    return {name: count for section in sections for name, count in section.subsets.items()}


def prepare_rewardbench(
    source: SourceConfig, sections: Sections, items: Path, prompts: Path
) -> None:
    """Write the benchmark's rows, and its different prompts: subsets share some.

    Raises InputError when a subset does not have as many rows as `sections` says, or is not there.
    """
    expected = subsets_of(sections)
    found = list(_choices(source))
    counts = {name: sum(choice.subset == name for choice in found) for name in expected}
    unknown = sorted({choice.subset for choice in found} - set(expected))
    wrong = [
        f"{name}: {counts[name]}, not {n}" for name, n in expected.items() if counts[name] != n
    ]
    if unknown or wrong:
        raise InputError(
            f"{describe(source)}: the subsets are not those of rewardbench.sections: "
            + "; ".join(wrong + [f"{name}: not expected" for name in unknown])
        )
    unique: dict[str, Prompt] = {}
    for c in found:
        prompt = Prompt(prompt_id=c.prompt_id, prompt=c.prompt, source=describe(source))
        unique.setdefault(c.prompt_id, prompt)
    write_jsonl(items, found)
    write_jsonl(prompts, unique.values())
    write_sidecar(items, [describe(source)], RowCounts.all_kept(len(found)))
    different = RowCounts.all_kept(len(found))
    different.drop("prompt of another row", asked_for=True, rows=len(found) - len(unique))
    write_sidecar(prompts, [describe(source)], different)
    log.info("%d prompts of %d subsets, %d different", len(found), len(expected), len(unique))


def _choices(source: SourceConfig) -> Iterator[Choice]:
    for place, row in read_placed_rows(source):
        prompt = as_prompt(cell(row, "prompt", place), "prompt", place)
        if prompt is None:
            raise InputError(f"{place}: the prompt is empty")
        yield Choice(
            item_id=str(row.get("id", place)),
            subset=str(cell(row, "subset", place)),
            prompt_id=prompt_id(prompt),
            prompt=prompt,
            chosen=as_response(cell(row, "chosen", place), "chosen", place) or "",
            rejected=as_response(cell(row, "rejected", place), "rejected", place) or "",
        )
