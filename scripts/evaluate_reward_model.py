"""Compare the reward model's outputs with the held-out ratings.

Rule: evaluate_reward_model. Example:

    python -m scripts.evaluate_reward_model --reward-model reward_model/model \
        --ratings data/ratings.jsonl --tokens-per-batch 16384 --metrics metrics.csv \
        --ranking ranking.csv --predictions predictions.parquet

Writes metrics.csv (attribute, n, pearson, spearman, rmse) over all validation ratings, and
ranking.csv (attribute, prompts, spearman_within_prompt, pairwise_accuracy): how responses to the
same prompt are ranked, averaged over prompts. predictions.parquet has every label with its
prediction.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dpa.runtime.cli import make_app, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    reward_model: Annotated[str, typer.Option(help="Folder or hub id.")],
    ratings: Annotated[Path, typer.Option(help="ratings.jsonl; its validation split is used.")],
    metrics: Annotated[Path, typer.Option(help="CSV to write.")],
    ranking: Annotated[Path, typer.Option(help="CSV to write.")],
    predictions: Annotated[Path, typer.Option(help="Parquet file to write.")],
    tokens_per_batch: Annotated[int, typer.Option(min=1, help="Most tokens at a time.")] = 16384,
    attributes: Annotated[
        str | None, typer.Option(help="Names that the outputs must have, in order.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model.")] = None,
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="What runs the reward model.")
    ] = "transformers",
) -> None:
    """Compare the reward model's outputs with the held-out ratings."""
    import pandas as pd

    from dpa.artefacts.files import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.evaluation.rating_agreement import (
        held_out_groups,
        labelled_pairs,
        metrics_table,
        prediction_rows,
        ranking_table,
        score_held_out,
    )
    from dpa.reward.load import open_scorer

    losses = RowCounts()
    groups = held_out_groups(ratings, losses)
    with open_scorer(
        engine,
        reward_model,
        revision,
        metrics,
        attributes=attributes.split(",") if attributes else None,
        tokens_per_batch=tokens_per_batch,
    ) as model:
        survey = model.survey((g[0].prompt, [r.response for r in g]) for g in groups)
        survey.check(metrics)
        pairs = labelled_pairs(score_held_out(model, ratings, groups), model.names)
    details = {
        "scored": survey.inputs,
        "cut": survey.cut,
        "neutralised": model.controls.log_neutralised(),
    }
    with atomic(predictions) as partial:
        pd.DataFrame(prediction_rows(pairs)).to_parquet(partial, index=False)
    write_sidecar(predictions, [reward_model, ratings], losses, **details)
    for path, rows in ((metrics, metrics_table(pairs)), (ranking, ranking_table(pairs))):
        table = pd.DataFrame(rows)
        with atomic(path) as partial:
            table.to_csv(partial, index=False)
        write_sidecar(
            path,
            [reward_model, ratings],
            losses,
            counted_in=predictions.name,
            **details,
        )
        log.info("%s\n%s", path, table.to_string(index=False))


if __name__ == "__main__":
    run(app)
