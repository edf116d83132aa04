"""What Rewards-in-Context needs of the data: the range of rewards, and original responses to keep.

Rule: prepare_ric. Example:

    python -m scripts.prepare_ric --annotations annotations/0.jsonl --seed 0 \
        --prompts data/prompts/d1.jsonl --prompts data/prompts/d2.jsonl \
        --output ric/originals.jsonl --output-ranges ric/ranges.json

Originals are Annotation records, the best by some objective; the ranges are of all of them.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    AnnotationsOption,
    DirectionsOption,
    MembersOption,
    OutputOption,
    PromptFilesOption,
    SeedOption,
    ThresholdOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    annotations: AnnotationsOption,
    prompts: PromptFilesOption,
    seed: SeedOption,
    output: OutputOption,
    output_ranges: Annotated[Path, typer.Option(help="Worst and best rewards (JSON).")],
    directions: DirectionsOption = None,
    members: MembersOption = 1,
    threshold: ThresholdOption = 0.7,
    originals: Annotated[int, typer.Option(min=0, help="Most responses that are kept.")] = 10000,
) -> None:
    """Keep the best original responses, and their range of rewards."""
    import msgspec

    from dpa.artefacts.jsonl import decode_lines, write_jsonl
    from dpa.artefacts.outputs import write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import DistributionConfig
    from dpa.methods import ric
    from dpa.records import Prompt

    distribution = read_section(
        DistributionConfig, directions, "directions", "directions"
    ).model_dump()
    signs = ric.signs_of(distribution)
    wanted = {prompt.prompt_id for path in prompts for prompt in decode_lines(path, Prompt)}
    rewards = ric.rewards_of(ric.annotated_originals(annotations, members, wanted, RowCounts()))
    row_counts = RowCounts()
    kept = ric.at_most(ric.good_at_something(rewards, signs, threshold), originals, seed)
    rows = ric.annotated_originals(annotations, members, wanted, row_counts)
    count = write_jsonl(output, ric.keep(rows, kept, "not among the best", row_counts))
    inputs = [*annotations, *prompts]
    write_sidecar(output, inputs, row_counts, rows=count)
    ranges = ric.reward_ranges(rewards, signs)
    write_text(output_ranges, msgspec.json.encode(ranges).decode() + "\n")
    write_sidecar(output_ranges, inputs, row_counts, counted_in=output.name)
    log.info("kept %d of %d original responses", count, len(rewards))


if __name__ == "__main__":
    run_app(app)
