"""Average what several reward models made of the same samples.

Rule: average_scores (only where there are several). Example:

    python -m scripts.average_scores --scored scored_by/reward_model/dpa-4.jsonl \
        --scored scored_by/reward_model/member1/dpa-4.jsonl --output scored_by/members/dpa-4.jsonl

Writes a ScoredSample per sample, in the same order: outputs and rewards are the models' means.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import OutputOption, ScoredOption

app = make_app()


@app.command()
def main(scored: ScoredOption, output: OutputOption) -> None:
    """Average what several reward models made of the same samples."""
    from dpa.artefacts.jsonl import write_jsonl
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.members import mean_samples

    rows = write_jsonl(output, mean_samples(scored))
    write_sidecar(output, scored, RowCounts.all_kept(rows), rows=rows)


if __name__ == "__main__":
    run_app(app)
