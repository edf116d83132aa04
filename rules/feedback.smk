# Feedback between DPA's iterations (docs/feedback.md), where there is an annotator: samples of iteration t
# are rated, and the reward model of iteration t + 1 is trained on all ratings so far, beside sampling.


if layout.has_feedback:

    ASKED_OVER_HTTP = cfg.feedback.annotator.kind == "endpoint"
    ANNOTATOR_LIMITS = (
        " --concurrency {resources.concurrency} --max-cost {resources.max_cost}"
        if ASKED_OVER_HTTP
        else ""
    )

    rule choose_samples_to_rate:
        input:
            scored=shard_files(
                "results/{experiment}/dpa/iter{iteration}/scored/{shard}.jsonl", cfg.shards
            ),
            prompts=of.prompt_half,
            held_out="results/{experiment}/data/prompts/validation.jsonl",
            before=of.feedback_before("to_rate.jsonl"),
            code=code("choose_samples_to_rate"),
        output:
            to_rate="results/{experiment}/feedback/iter{iteration}/to_rate.jsonl",
            sheet="results/{experiment}/feedback/iter{iteration}/to_rate.csv",
        log:
            "results/{experiment}/logs/choose_samples_to_rate/iter{iteration}.log",
        benchmark:
            "results/{experiment}/benchmarks/choose_samples_to_rate/iter{iteration}.tsv"
        priority: CRITICAL
        resources:
            **jobs.on_cpu(2000),
            runtime=60,
        params:
            scored=input_flags("scored"),
            before=input_flags("before"),
            directions=section(cfg.directions),
            objectives=section(cfg.objectives),
            best_per_prompt=cfg.feedback.best_per_prompt,
            random_per_prompt=cfg.feedback.random_per_prompt,
            most_prompts=flags.given("--most-prompts", cfg.feedback.prompts_per_iteration),
            seed=of.base_seed,
        message:
            "Feedback, iteration {wildcards.iteration}: choosing the samples that are rated"
        shell:
            "python -m scripts.choose_samples_to_rate {params.scored:q} --prompts {input.prompts:q}"
            " --held-out {input.held_out:q} {params.before:q}"
            " --iteration {wildcards.iteration} --seed {params.seed}"
            " --directions {params.directions:q} --objectives {params.objectives:q}"
            " --best-per-prompt {params.best_per_prompt}"
            " --random-per-prompt {params.random_per_prompt} {params.most_prompts:q}"
            " --output {output.to_rate:q} --output-sheet {output.sheet:q} > {log} 2>&1"

    # An endpoint is asked from where Snakemake runs, which reaches it and has its key: nodes of a
    # cluster may have neither. Answers are kept in results/judgements, across runs and experiments.
    rule annotate_feedback:
        input:
            to_rate="results/{experiment}/feedback/iter{iteration}/to_rate.jsonl",
            annotator=of.annotator_inputs,
            code=code("annotate_feedback"),
        output:
            ratings="results/{experiment}/feedback/iter{iteration}/ratings.jsonl",
        log:
            "results/{experiment}/logs/annotate_feedback/iter{iteration}.log",
        benchmark:
            "results/{experiment}/benchmarks/annotate_feedback/iter{iteration}.tsv"
        priority: CRITICAL
        # People do not rate faster when they are asked again.
        retries: 0 if cfg.feedback.annotator.kind == "file" else None
        localrule: ASKED_OVER_HTTP
        threads: 1 if ASKED_OVER_HTTP else cfg.threads
        resources:
            **(
                jobs.on_one_gpu(4000, 48000)
                if cfg.feedback.annotator.kind == "reward_model"
                else jobs.on_cpu(4000)
            ),
            # Not among params: other limits are no other ratings.
            **flags.annotator_limits(layout),
            runtime=720,
        params:
            annotator=flags.annotator_section(layout),
            models=section(cfg.models),
            attributes=",".join(cfg.rated_attributes),
            minimum=cfg.feedback.minimum,
            seed=of.base_seed,
        message:
            "Feedback, iteration {wildcards.iteration}: having samples rated"
        shell:
            "python -m scripts.annotate_feedback --to-rate {input.to_rate:q}"
            " --annotator {params.annotator:q} --models {params.models:q}"
            " --attributes {params.attributes:q}"
            " --iteration {wildcards.iteration} --seed {params.seed} --minimum {params.minimum}"
            + ANNOTATOR_LIMITS
            + " --output {output.ratings:q} > {log} 2>&1"

    rule retrain_reward_model:
        input:
            ratings="results/{experiment}/data/ratings.jsonl",
            feedback=of.feedback_before("ratings.jsonl"),
            base_model=of.made_or_given(cfg.base_model, "results/{experiment}/base_model"),
            before=of.reward_model_before,
            code=code("train_reward_model"),
            preflight=PREFLIGHT,
        output:
            model=directory(
                "results/{experiment}/feedback/iter{iteration}/reward_model{member}/model"
            ),
        log:
            "results/{experiment}/logs/retrain_reward_model{member}/iter{iteration}.log",
        benchmark:
            "results/{experiment}/benchmarks/retrain_reward_model{member}/iter{iteration}.tsv"
        priority: CRITICAL
        threads: jobs.training_threads(cfg.reward_model.threads)
        resources:
            **jobs.training(8000, cfg.reward_model.threads),
        params:
            feedback=input_flags("feedback", "--ratings"),
            base_model=of.base_model_flags,
            before=of.reward_model_before_flags,
            attributes=",".join(cfg.reward_model.attributes),
            trainer=section(cfg.reward_trainer),
            schedule=section(cfg.reward_model.schedule),
            lm_loss_weight=cfg.reward_model.lm_loss_weight,
            token_dropout=cfg.reward_model.token_dropout,
            member=of.member_flag,
            seed=of.base_seed,
        message:
            "Feedback, iteration {wildcards.iteration}: training reward_model{wildcards.member}"
        shell:
            until_saved(
                "{resources.launcher} -m scripts.train_reward_model --ratings {input.ratings:q}"
                " {params.feedback:q} --iteration {wildcards.iteration} {params.base_model:q}"
                " {params.before:q}"
                " --attributes {params.attributes:q} --trainer {params.trainer:q}"
                " --schedule {params.schedule:q} --lm-loss-weight {params.lm_loss_weight}"
                " --token-dropout {params.token_dropout} {params.member} --seed {params.seed}"
                " --output {output.model:q}"
            )

    rule annotate_replay:
        input:
            ratings="results/{experiment}/data/ratings.jsonl",
            prompts=of.prompt_half,
            model="results/{experiment}/feedback/iter{iteration}/reward_model{member}/model",
            code=code("annotate_responses"),
            preflight=PREFLIGHT,
        output:
            annotations="results/{experiment}/feedback/iter{iteration}/annotations{member}/{shard}.jsonl",
        log:
            "results/{experiment}/logs/annotate_replay{member}/iter{iteration}-{shard}.log",
        benchmark:
            "results/{experiment}/benchmarks/annotate_replay{member}/iter{iteration}-{shard}.tsv"
        priority: CRITICAL
        threads: cfg.threads
        resources:
            **jobs.on_one_gpu(4000, 32000),
            runtime=720,
        params:
            model=of.loop_scorer_flags,
            objectives=section(cfg.objectives),
            dataset=cfg.data.original_responses,
            shards=cfg.shards,
            tokens=cfg.reward_model.tokens_per_batch,
        message:
            "Feedback, iteration {wildcards.iteration}: scoring the original responses, shard {wildcards.shard}"
        shell:
            "python -m scripts.annotate_responses {params.model:q} --ratings {input.ratings:q}"
            " --prompts {input.prompts:q} --dataset {params.dataset:q}"
            " --objectives {params.objectives:q} --shard {wildcards.shard}"
            " --shards {params.shards} --tokens-per-batch {params.tokens}"
            " --output {output.annotations:q} > {log} 2>&1"
