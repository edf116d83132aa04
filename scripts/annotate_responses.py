"""Score the original responses to the prompts with the reward model.

Rule: annotate_responses. Example:

    python -m scripts.annotate_responses --reward-model reward_model/model \
        --ratings data/ratings.jsonl --prompts data/prompts/d1.jsonl \
        --prompts data/prompts/d2.jsonl --dataset ultrafeedback --shard 0 --shards 2 \
        --output annotations/0.jsonl

Writes an Annotation per response, in the order of the prompts; a killed run resumes.
"""

from pathlib import Path

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    AttributesOption,
    DatasetOption,
    EngineOption,
    ObjectivesOption,
    OutputOption,
    PromptFilesOption,
    RatingsOption,
    RewardModelOption,
    ShardOption,
    ShardsOption,
    TokensPerBatchOption,
)
from dpa.runtime.sections import names_of, read_section

app = make_app()


@app.command()
def main(
    reward_model: RewardModelOption,
    ratings: RatingsOption,
    prompts: PromptFilesOption,
    dataset: DatasetOption,
    shard: ShardOption,
    shards: ShardsOption,
    output: OutputOption,
    objectives: ObjectivesOption = None,
    tokens_per_batch: TokensPerBatchOption = 16384,
    attributes: AttributesOption = None,
    engine: EngineOption = "transformers",
) -> None:
    """Score the original responses to the prompts."""

    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import fingerprint, write_sidecar
    from dpa.config.steering import ObjectivesConfig
    from dpa.errors import InputError
    from dpa.models import ModelRef
    from dpa.reward.annotate import annotate, groups_of_originals, original_responses
    from dpa.reward.load import open_scorer, read_reward_model

    if shard >= shards:
        raise InputError(f"--shard {shard}: must be below --shards {shards}")
    steered = read_section(ObjectivesConfig, objectives, "objectives", "objectives")
    originals = original_responses(ratings, prompts, dataset, shard, shards)
    inputs: list[Path | str] = [ModelRef.of(reward_model).path, ratings, *prompts]
    row_counts = RowCounts()
    read = read_reward_model(reward_model, attributes=names_of(attributes), objectives=steered)
    responses = sum(len(group) for chunk in originals for group in chunk)
    survey = read.inputs.survey(groups_of_originals(originals), responses)
    survey.check(output)
    known = fingerprint(
        inputs,
        reward_model=reward_model,
        names=read.names,
        dataset=dataset,
        objectives=[objective.model_dump() for objective in steered],
        shard=[shard, shards],
        tokens_per_batch=tokens_per_batch,
        engine=engine,
    )

    def sidecar() -> None:
        write_sidecar(
            output,
            inputs,
            row_counts,
            scored=survey.inputs,
            cut=survey.truncated,
            neutralised=read.inputs.controls.log_escaped(),
        )

    with open_scorer(read, engine, output, tokens_per_batch=tokens_per_batch) as model:
        rows = annotate(model, ratings, originals, steered, row_counts, output, known, sidecar)
    log.info("scored %d responses to %d of %d prompts", rows, row_counts.kept, row_counts.read)


if __name__ == "__main__":
    run_app(app)
