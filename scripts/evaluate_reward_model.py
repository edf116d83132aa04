"""Compare the reward model's outputs with the held-out ratings.

Rule: evaluate_reward_model. Example:

    python -m scripts.evaluate_reward_model --reward-model reward_model/model \
        --ratings data/ratings.jsonl --output-metrics metrics.csv --output-ranking ranking.csv \
        --output-predictions predictions.parquet

Writes metrics.csv (attribute, n, pearson, spearman, rmse) over all validation ratings, and
ranking.csv (attribute, prompts, spearman_within_prompt, pairwise_accuracy): how responses to the
same prompt are ranked, averaged over prompts. predictions.parquet has every label with its
prediction.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    AttributesOption,
    EngineOption,
    RatingsOption,
    RewardModelOption,
    TokensPerBatchOption,
)
from dpa.runtime.sections import names_of

app = make_app()


@app.command()
def main(
    reward_model: RewardModelOption,
    ratings: RatingsOption,
    output_metrics: Annotated[Path, typer.Option(help="metrics.csv, which is written.")],
    output_ranking: Annotated[Path, typer.Option(help="ranking.csv, which is written.")],
    output_predictions: Annotated[
        Path, typer.Option(help="predictions.parquet, which is written.")
    ],
    tokens_per_batch: TokensPerBatchOption = 16384,
    attributes: AttributesOption = None,
    engine: EngineOption = "transformers",
) -> None:
    """Compare the reward model's outputs with the held-out ratings."""
    import pandas as pd

    from dpa.artefacts.outputs import atomic
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.evaluation.rating_agreement import (
        groups_of_ratings,
        held_out_groups,
        labelled_pairs,
        metrics_table,
        prediction_rows,
        ranking_table,
        score_held_out,
    )
    from dpa.models import ModelRef
    from dpa.reward.load import open_scorer, read_reward_model

    inputs: list[Path | str] = [ModelRef.of(reward_model).path, ratings]
    row_counts = RowCounts()
    groups = held_out_groups(ratings, row_counts)
    read = read_reward_model(reward_model, attributes=names_of(attributes))
    survey = read.inputs.survey(groups_of_ratings(groups), sum(map(len, groups)))
    survey.check(output_metrics)
    with open_scorer(read, engine, output_metrics, tokens_per_batch=tokens_per_batch) as model:
        pairs = labelled_pairs(score_held_out(model, ratings, groups), model.names)
    details: dict[str, Any] = {
        "scored": survey.inputs,
        "cut": survey.truncated,
        "neutralised": read.inputs.controls.log_escaped(),
    }
    with atomic(output_predictions) as partial:
        pd.DataFrame(prediction_rows(pairs)).to_parquet(partial, index=False)
    write_sidecar(output_predictions, inputs, row_counts, **details)
    for path, rows in (
        (output_metrics, metrics_table(pairs)),
        (output_ranking, ranking_table(pairs)),
    ):
        table = pd.DataFrame(rows)
        with atomic(path) as partial:
            table.to_csv(partial, index=False)
        write_sidecar(
            path,
            inputs,
            row_counts,
            counted_in=output_predictions.name,
            **details,
        )
        log.info("%s\n%s", path, table.to_string(index=False))


if __name__ == "__main__":
    run_app(app)
