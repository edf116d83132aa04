# Feedback as Wolf et al. have it (arXiv 2505.18126), for benchmarks.compare_variants: an iteration's own
# samples are rated, and scored once more by the reward model that has learnt from that, by which the
# iteration then selects and replays. In dpa's feedback that is the reward model of the iteration after,
# so that only what DPA selects by differs here. The last iteration is rated, too.
#
# evaluation's selector_* are by the model of dpa's feedback here, which chose what was rated.

from types import SimpleNamespace


include: "../Snakefile"


def one_later(wildcards):
    """Of the iteration after, whose reward model has learnt from this one's samples."""
    return SimpleNamespace(**dict(wildcards.items()) | {"iteration": int(wildcards.iteration) + 1})


def rescored(folder):
    """An iteration's files of that name in all shards, of each reward model that scores."""

    def files(wildcards):
        run, stage = f"results/{wildcards.experiment}", f"dpa/iter{wildcards.iteration}"
        pattern = f"{run}/{stage}/{folder}{{member}}/{{shard}}.jsonl"
        return shard_files(pattern, cfg.shards, layout.members)

    return files


use rule score_responses as rescore_responses with:
    input:
        sampled="results/{experiment}/{loop}/iter{iteration}/sampled/{shard}.jsonl",
        prompts=of.prompt_half,
        model=lambda wildcards: of.loop_reward_model(one_later(wildcards)),
        code=code("score_responses"),
        preflight=PREFLIGHT,
    output:
        scored="results/{experiment}/{loop}/iter{iteration}/rescored{member}/{shard}.jsonl",
    log:
        "results/{experiment}/logs/rescore_responses{member}/{loop}/iter{iteration}-{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/rescore_responses{member}/{loop}/iter{iteration}-{shard}.tsv"
    wildcard_constraints:
        loop="dpa",
    params:
        model=lambda wildcards: of.loop_scorer_flags(one_later(wildcards)),
        objectives=section(cfg.objectives),
        tokens=cfg.reward_model.tokens_per_batch,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: scoring again, shard {wildcards.shard}"


use rule annotate_replay as rescore_replay with:
    input:
        ratings="results/{experiment}/data/ratings.jsonl",
        prompts=of.prompt_half,
        model=lambda wildcards: of.loop_reward_model(one_later(wildcards)),
        code=code("annotate_responses"),
        preflight=PREFLIGHT,
    output:
        annotations="results/{experiment}/dpa/iter{iteration}/rescored_originals{member}/{shard}.jsonl",
    log:
        "results/{experiment}/logs/rescore_replay{member}/iter{iteration}-{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/rescore_replay{member}/iter{iteration}-{shard}.tsv"
    params:
        model=lambda wildcards: of.loop_scorer_flags(one_later(wildcards)),
        objectives=section(cfg.objectives),
        dataset=cfg.data.original_responses,
        shards=cfg.shards,
        tokens=cfg.reward_model.tokens_per_batch,


use rule select_responses as select_rescored with:
    input:
        scored=rescored("rescored"),
        annotations=rescored("rescored_originals"),
        prompts=of.prompt_half,
        code=code("select_responses"),
    wildcard_constraints:
        loop="dpa",


ruleorder: select_rescored > select_responses
