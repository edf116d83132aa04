"""Keep the samples of an iteration of Rewards-in-Context that are good at something, relabelled.

Rule: reject_responses. Example:

    python -m scripts.reject_responses --scored ric/iter1/scored/0.jsonl \
        --prompts data/prompts/d1.jsonl --output ric/iter1/kept.jsonl

Writes Annotation records: responses with the rewards that they got.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    DirectionsOption,
    MembersOption,
    OutputOption,
    PromptsOption,
    ScoredOption,
    ThresholdOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    scored: ScoredOption,
    prompts: PromptsOption,
    output: OutputOption,
    directions: DirectionsOption = None,
    members: MembersOption = 1,
    threshold: ThresholdOption = 0.7,
) -> None:
    """Keep the samples that are good at something."""
    from dataclasses import asdict

    from dpa.artefacts.jsonl import write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.steering import DistributionConfig
    from dpa.methods import ric
    from dpa.methods.best_of_n import Truncated
    from dpa.text.prompts import read_prompts

    distribution = read_section(
        DistributionConfig, directions, "directions", "directions"
    ).model_dump()
    texts = read_prompts(prompts)
    first = ric.relabelled_samples(scored, texts, members, RowCounts(), Truncated())
    good = ric.good_at_something(ric.rewards_of(first), ric.signs_of(distribution), threshold)
    row_counts, truncated = RowCounts(), Truncated()
    rows = ric.relabelled_samples(scored, texts, members, row_counts, truncated)
    count = write_jsonl(output, ric.keep(rows, good, "good at nothing", row_counts))
    write_sidecar(
        output, [*scored, prompts], row_counts, rows=count, truncated_candidates=asdict(truncated)
    )
    log.info("kept %d of %d responses", count, row_counts.read)


if __name__ == "__main__":
    run_app(app)
