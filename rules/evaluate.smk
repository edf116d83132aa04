# Held-out prompts under every direction: the numbers behind figure 4.


rule evaluate_policy:
    input:
        policy=evaluated_policy,
        conditions=evaluated_conditions,
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        model=made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
        code=code("evaluate_policy"),
    output:
        sampled="results/{experiment}/evaluation/sampled/{policy}.jsonl",
        scored="results/{experiment}/evaluation/scored/{policy}.jsonl",
    log:
        "results/{experiment}/logs/evaluate_policy/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/evaluate_policy/{policy}.tsv"
    threads: cfg.threads
    resources:
        mem_mb=4000,
        runtime=720,
    params:
        model=reward_model_flags("--reward-model-revision"),
        steering=evaluation_flags,
        objectives=as_json(cfg.objectives),
        responses=cfg.evaluation.responses_per_prompt,
        sampling=as_json(
            cfg.sampling.model_copy(update={"temperature": cfg.evaluation.temperature})
        ),
        tokens=cfg.reward_model.tokens_per_batch,
        seed=cfg.seed,
    message:
        "Evaluating {wildcards.policy} on the validation prompts"
    shell:
        "python -m scripts.evaluate_policy {params.steering:q} {params.model:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q}"
        " --responses-per-prompt {params.responses} --sampling {params.sampling:q}"
        " --tokens-per-batch {params.tokens} --seed {params.seed}"
        " --sampled {output.sampled:q} --scored {output.scored:q} 2>&1 | tee {log}"


rule collect_validation_rewards:
    input:
        scored=expand("results/{{experiment}}/evaluation/scored/{policy}.jsonl", policy=policies()),
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        code=code("collect_validation_rewards"),
    output:
        rewards="results/{experiment}/evaluation/validation_rewards.csv",
    log:
        "results/{experiment}/logs/collect_validation_rewards.log",
    benchmark:
        "results/{experiment}/benchmarks/collect_validation_rewards.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        gold=["--gold", cfg.evaluation.gold] if cfg.evaluation.gold else [],
        responses=lambda wildcards, input: repeat_flag("--responses", input.scored),
        objectives=OBJECTIVES,
        seed=cfg.seed,
    message:
        "Collecting the validation rewards of all policies"
    shell:
        "python -m scripts.collect_validation_rewards {params.responses:q} {params.gold:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q} --seed {params.seed}"
        " --output {output.rewards:q} 2>&1 | tee {log}"


# Prints and fails; makes nothing, so that it runs whenever it is asked for.
rule check_quickstart:
    input:
        rewards=REWARDS,
        annotations=[
            path.format(experiment=cfg.experiment)
            for path in shard_files("results/{experiment}/annotations/{shard}.jsonl")
        ],
        code=code("check_quickstart"),
    log:
        f"results/{cfg.experiment}/logs/check_quickstart.log",
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        annotations=lambda wildcards, input: repeat_flag("--annotations", input.annotations),
        reference=",".join(map(str, cfg.evaluation.hypervolume_reference)),
    message:
        "Checking that the run shows what the paper claims"
    shell:
        "python -m scripts.check_quickstart --rewards {input.rewards:q} {params.annotations:q}"
        " --hypervolume-reference {params.reference} 2>&1 | tee {log}"
