# Held-out prompts under every direction: the numbers behind figure 4.


rule evaluate_policy:
    input:
        policy=evaluated_policy,
        conditions=evaluated_conditions,
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        model=made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
        code=code("evaluate_policy"),
        preflight=PREFLIGHT,
    output:
        sampled="results/{experiment}/evaluation/sampled/{policy}.jsonl",
        scored="results/{experiment}/evaluation/scored/{policy}.jsonl",
    log:
        "results/{experiment}/logs/evaluate_policy/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/evaluate_policy/{policy}.tsv"
    wildcard_constraints:
        policy=r"(?!reward_soup)[a-z_]+(-\d+)?",
    threads: cfg.threads
    resources:
        gpu=GPU,
        cpus_per_gpu=cfg.compute.cpus_per_gpu,
        mem_mb=memory(4000, on_gpu=48000),
        runtime=720,
    params:
        model=scorer_flags("--reward-model-revision"),
        steering=evaluation_flags,
        objectives=as_json(cfg.objectives),
        responses=cfg.evaluation.responses_per_prompt,
        sampling=as_json(EVALUATION_SAMPLING),
        tokens=cfg.reward_model.tokens_per_batch,
        seed=base_seed,
    message:
        "Evaluating {wildcards.policy} on the validation prompts"
    shell:
        "python -m scripts.evaluate_policy {params.steering:q} {params.model:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q}"
        " --responses-per-prompt {params.responses} --sampling {params.sampling:q}"
        " --tokens-per-batch {params.tokens} --seed {params.seed}"
        " --sampled {output.sampled:q} --scored {output.scored:q} 2>&1 | tee {log}"


rule evaluate_soup:
    input:
        experts=soup_experts,
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        model=made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
        code=code("evaluate_soup"),
        preflight=PREFLIGHT,
    output:
        sampled="results/{experiment}/evaluation/sampled/reward_soup.jsonl",
        scored="results/{experiment}/evaluation/scored/reward_soup.jsonl",
    log:
        "results/{experiment}/logs/evaluate_soup.log",
    benchmark:
        "results/{experiment}/benchmarks/evaluate_soup.tsv"
    threads: cfg.threads
    resources:
        gpu=GPU,
        cpus_per_gpu=cfg.compute.cpus_per_gpu,
        mem_mb=memory(8000, on_gpu=64000),
        runtime=720,
    params:
        experts=lambda wildcards, input: repeat_flag("--expert", input.experts),
        model=scorer_flags("--reward-model-revision"),
        directions=as_json(cfg.directions),
        grid=json.dumps(cfg.evaluation.directions),
        objectives=as_json(cfg.objectives),
        responses=cfg.evaluation.responses_per_prompt,
        sampling=as_json(EVALUATION_SAMPLING),
        tokens=cfg.reward_model.tokens_per_batch,
        seed=base_seed,
    message:
        "Evaluating Reward Soup on the validation prompts"
    shell:
        "python -m scripts.evaluate_soup {params.experts:q} {params.model:q}"
        " --directions {params.directions:q} --grid {params.grid:q} --prompts {input.prompts:q}"
        " --objectives {params.objectives:q} --responses-per-prompt {params.responses}"
        " --sampling {params.sampling:q} --tokens-per-batch {params.tokens} --seed {params.seed}"
        " --sampled {output.sampled:q} --scored {output.scored:q} 2>&1 | tee {log}"


rule sample_benchmark:
    input:
        policy=evaluated_policy,
        conditions=evaluated_conditions,
        prompts="results/{experiment}/{benchmark}/prompts.jsonl",
        code=code("sample_benchmark"),
        preflight=PREFLIGHT,
    output:
        sampled="results/{experiment}/{benchmark}/sampled/{policy}.jsonl",
    log:
        "results/{experiment}/logs/sample_benchmark/{benchmark}/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/sample_benchmark/{benchmark}/{policy}.tsv"
    wildcard_constraints:
        policy=r"(?!reward_soup)[a-z_]+(-\d+)?",
    threads: cfg.threads
    resources:
        gpu=GPU,
        cpus_per_gpu=cfg.compute.cpus_per_gpu,
        mem_mb=memory(4000, on_gpu=48000),
        runtime=720,
    params:
        steering=benchmark_flags,
        objectives=OBJECTIVES,
        sampling=benchmark_sampling,
        seed=base_seed,
    message:
        "Sampling {wildcards.policy} on the prompts of {wildcards.benchmark}"
    shell:
        "python -m scripts.sample_benchmark {params.steering:q} --prompts {input.prompts:q}"
        " --objectives {params.objectives:q} --sampling {params.sampling:q} --seed {params.seed}"
        " --output {output.sampled:q} 2>&1 | tee {log}"


rule collect_validation_rewards:
    input:
        scored=expand("results/{{experiment}}/evaluation/scored/{policy}.jsonl", policy=policies()),
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        code=code("collect_validation_rewards"),
    output:
        rewards="results/{experiment}/evaluation/validation_rewards.csv",
        by_prompt="results/{experiment}/evaluation/prompt_rewards.parquet",
    log:
        "results/{experiment}/logs/collect_validation_rewards.log",
    benchmark:
        "results/{experiment}/benchmarks/collect_validation_rewards.tsv"
    wildcard_constraints:
        experiment=ONE_SEED,
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        gold=["--gold", cfg.evaluation.gold] if cfg.evaluation.gold else [],
        responses=lambda wildcards, input: repeat_flag("--responses", input.scored),
        objectives=as_json(cfg.objectives),
        seed=base_seed,
    message:
        "Collecting the validation rewards of all policies"
    shell:
        "python -m scripts.collect_validation_rewards {params.responses:q} {params.gold:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q} --seed {params.seed}"
        " --by-prompt {output.by_prompt:q} --output {output.rewards:q} 2>&1 | tee {log}"


if not isinstance(cfg.seed, int):

    # One table for all seeds, where a single seed has its own.
    rule collect_seeds:
        input:
            rewards=expand("{run}/evaluation/validation_rewards.csv", run=RUNS),
            code=code("collect_seeds"),
        output:
            rewards=f"results/{cfg.experiment}/evaluation/validation_rewards.csv",
        log:
            f"results/{cfg.experiment}/logs/collect_seeds.log",
        localrule: True
        resources:
            mem_mb=memory(1000),
            runtime=10,
        params:
            rewards=lambda wildcards, input: repeat_flag("--rewards", input.rewards),
        message:
            "Collecting the validation rewards of all seeds"
        shell:
            "python -m scripts.collect_seeds {params.rewards:q} --output {output.rewards:q}"
            " 2>&1 | tee {log}"


# Prints and fails; makes nothing, so that it runs whenever it is asked for.
rule check_quickstart:
    input:
        rewards=expand("{run}/evaluation/validation_rewards.csv", run=RUNS),
        annotations=expand("{run}/annotations/{shard}.jsonl", run=RUNS, shard=SHARDS),
        code=code("check_quickstart"),
    log:
        f"results/{cfg.experiment}/logs/check_quickstart.log",
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        runs=repeat_flag("--run", RUNS),
        reference=",".join(map(str, cfg.evaluation.hypervolume_reference)),
    message:
        "Checking that the run shows what the paper claims"
    shell:
        "python -m scripts.check_quickstart {params.runs:q}"
        " --hypervolume-reference {params.reference} 2>&1 | tee {log}"
