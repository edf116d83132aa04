# The multi-objective reward model, its quality, and its annotation of original responses.


rule pretrain_base_model:
    input:
        documents=of.sources(cfg.data.pretraining),
        ratings="results/{experiment}/data/ratings.jsonl",
        code=code("pretrain_base_model"),
        preflight=PREFLIGHT,
    output:
        model=directory("results/{experiment}/base_model"),
    log:
        "results/{experiment}/logs/pretrain_base_model.log",
    benchmark:
        "results/{experiment}/benchmarks/pretrain_base_model.tsv"
    threads: cfg.threads
    resources:
        **jobs.on_cpu(4000),
        runtime=60,
    params:
        documents=repeat("--documents", map(section, cfg.data.pretraining)),
        models=section(cfg.models),
        scratch=section(cfg.base_model.scratch),
        trainer=section(cfg.trainer),
        seed=of.base_seed,
    message:
        "Making a base model from scratch"
    shell:
        until_saved(
            "python -m scripts.pretrain_base_model {params.documents:q} --ratings {input.ratings:q}"
            " --models {params.models:q}"
            " --scratch {params.scratch:q} --trainer {params.trainer:q} --seed {params.seed}"
            " --output {output.model:q}"
        )


rule train_reward_model:
    input:
        ratings="results/{experiment}/data/ratings.jsonl",
        base_model=of.made_or_given(cfg.base_model, "results/{experiment}/base_model"),
        probe="results/{experiment}/reward_model/probe.safetensors" if layout.averaged else [],
        code=code("train_reward_model"),
        preflight=PREFLIGHT,
    output:
        model=directory("results/{experiment}/reward_model{member}/model"),
    log:
        "results/{experiment}/logs/train_reward_model{member}.log",
    benchmark:
        "results/{experiment}/benchmarks/train_reward_model{member}.tsv"
    wildcard_constraints:
        member=LATER_MEMBER if layout.averaged else MEMBER_PATTERN,
    priority: CRITICAL
    threads: jobs.training_threads(cfg.reward_model.threads)
    resources:
        **jobs.training(8000, cfg.reward_model.threads),
    params:
        base_model=of.base_model_flags,
        attributes=",".join(cfg.reward_model.attributes),
        trainer=section(cfg.reward_trainer),
        schedule=section(cfg.reward_model.schedule),
        lm_loss_weight=cfg.reward_model.lm_loss_weight,
        token_dropout=cfg.reward_model.token_dropout,
        member=of.member_flag,
        probe=of.probe_flag,
        seed=of.base_seed,
    message:
        "Training the reward model{wildcards.member} on all ratings"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_reward_model --ratings {input.ratings:q} {params.base_model:q}"
            " --attributes {params.attributes:q} --trainer {params.trainer:q}"
            " --schedule {params.schedule:q} --lm-loss-weight {params.lm_loss_weight}"
            " --token-dropout {params.token_dropout} {params.member} {params.probe:q} --seed {params.seed}"
            " --output {output.model:q}"
        )


if layout.averaged:

    rule probe_reward_model:
        input:
            ratings="results/{experiment}/data/ratings.jsonl",
            base_model=of.made_or_given(cfg.base_model, "results/{experiment}/base_model"),
            code=code("probe_reward_model"),
            preflight=PREFLIGHT,
        output:
            probe="results/{experiment}/reward_model/probe.safetensors",
        log:
            "results/{experiment}/logs/probe_reward_model.log",
        benchmark:
            "results/{experiment}/benchmarks/probe_reward_model.tsv"
        priority: CRITICAL
        threads: cfg.threads
        resources:
            **jobs.on_one_gpu(8000, 64000),
            runtime=720,
        params:
            base_model=of.base_model_flags,
            attributes=",".join(cfg.reward_model.attributes),
            trainer=section(cfg.reward_trainer),
            schedule=section(cfg.reward_model.schedule),
        message:
            "Fitting the head that averaged reward models start from"
        shell:
            "python -m scripts.probe_reward_model --ratings {input.ratings:q} {params.base_model:q}"
            " --attributes {params.attributes:q} --trainer {params.trainer:q}"
            " --schedule {params.schedule:q} --output {output.probe:q} > {log} 2>&1"

    rule average_reward_models:
        input:
            models=expand(
                "results/{{experiment}}/reward_model{member}/model", member=layout.averaged
            ),
            code=code("average_reward_models"),
        output:
            model=directory("results/{experiment}/reward_model/model"),
        log:
            "results/{experiment}/logs/average_reward_models.log",
        benchmark:
            "results/{experiment}/benchmarks/average_reward_models.tsv"
        priority: CRITICAL
        resources:
            **jobs.on_cpu(16000),
            runtime=120,
        params:
            models=input_flags("models", "--reward-model"),
        message:
            "Averaging the reward models"
        shell:
            "python -m scripts.average_reward_models {params.models:q} --output {output.model:q}"
            " > {log} 2>&1"


# A scorer that never selects: the same model on ratings that the reward model does not see.
rule train_judge:
    input:
        ratings="results/{experiment}/data/ratings.jsonl",
        base_model=of.made_or_given(cfg.base_model, "results/{experiment}/base_model"),
        code=code("train_reward_model"),
        preflight=PREFLIGHT,
    output:
        model=directory("results/{experiment}/judge/model"),
    log:
        "results/{experiment}/logs/train_judge.log",
    benchmark:
        "results/{experiment}/benchmarks/train_judge.tsv"
    threads: jobs.training_threads(cfg.reward_model.threads)
    resources:
        **jobs.training(8000, cfg.reward_model.threads),
    params:
        base_model=of.base_model_flags,
        attributes=",".join(cfg.reward_model.attributes),
        trainer=section(cfg.reward_trainer),
        schedule=section(cfg.reward_model.schedule),
        lm_loss_weight=cfg.reward_model.lm_loss_weight,
        token_dropout=cfg.reward_model.token_dropout,
        seed=of.base_seed,
    message:
        "Training the judge on its share of the ratings"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_reward_model --ratings {input.ratings:q} {params.base_model:q}"
            " --split judge --attributes {params.attributes:q} --trainer {params.trainer:q}"
            " --schedule {params.schedule:q} --lm-loss-weight {params.lm_loss_weight}"
            " --token-dropout {params.token_dropout} --seed {params.seed}"
            " --output {output.model:q}"
        )


rule evaluate_reward_model:
    input:
        ratings="results/{experiment}/data/ratings.jsonl",
        model=of.evaluation_scorer,
        code=code("evaluate_reward_model"),
        preflight=PREFLIGHT,
    output:
        metrics="results/{experiment}/{scorer}/metrics.csv",
        ranking="results/{experiment}/{scorer}/ranking.csv",
        predictions="results/{experiment}/{scorer}/predictions.parquet",
    log:
        "results/{experiment}/logs/evaluate_reward_model/{scorer}.log",
    benchmark:
        "results/{experiment}/benchmarks/evaluate_reward_model/{scorer}.tsv"
    threads: cfg.threads
    resources:
        **jobs.on_one_gpu(4000, 32000),
        runtime=120,
    params:
        model=of.evaluation_scorer_flags,
        tokens=cfg.reward_model.tokens_per_batch,
    message:
        "Comparing {wildcards.scorer} with held-out ratings"
    shell:
        "python -m scripts.evaluate_reward_model {params.model:q} --ratings {input.ratings:q}"
        " --tokens-per-batch {params.tokens} --output-metrics {output.metrics:q}"
        " --output-ranking {output.ranking:q} --output-predictions {output.predictions:q}"
        " > {log} 2>&1"


rule annotate_responses:
    input:
        ratings="results/{experiment}/data/ratings.jsonl",
        d1="results/{experiment}/data/prompts/d1.jsonl",
        d2="results/{experiment}/data/prompts/d2.jsonl",
        validation="results/{experiment}/data/prompts/validation.jsonl",
        model=of.made_or_given(cfg.reward_model, "results/{experiment}/reward_model{member}/model"),
        code=code("annotate_responses"),
        preflight=PREFLIGHT,
    output:
        annotations="results/{experiment}/annotations{member}/{shard}.jsonl",
    log:
        "results/{experiment}/logs/annotate_responses{member}/{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/annotate_responses{member}/{shard}.tsv"
    priority: CRITICAL
    threads: cfg.threads
    resources:
        **jobs.on_one_gpu(4000, 32000),
        runtime=720,
    params:
        model=of.scorer_flags,
        objectives=section(cfg.objectives),
        dataset=cfg.data.original_responses,
        shards=cfg.shards,
        tokens=cfg.reward_model.tokens_per_batch,
    message:
        "Scoring the original responses, shard {wildcards.shard}"
    shell:
        "python -m scripts.annotate_responses {params.model:q} --ratings {input.ratings:q}"
        " --prompts {input.d1:q} --prompts {input.d2:q} --prompts {input.validation:q}"
        " --dataset {params.dataset:q} --objectives {params.objectives:q}"
        " --shard {wildcards.shard} --shards {params.shards} --tokens-per-batch {params.tokens}"
        " --output {output.annotations:q} > {log} 2>&1"
