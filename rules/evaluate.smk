# Held-out prompts under every direction: the numbers of figure 4.


rule evaluate_policy:
    input:
        policy=of.evaluated_policy,
        conditions=of.evaluated_conditions,
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        model=of.made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
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
        **jobs.on_one_gpu(4000, 48000),
        runtime=720,
    params:
        model=of.scorer_flags,
        steering=of.evaluation_flags,
        objectives=section(cfg.objectives),
        responses=cfg.evaluation.responses_per_prompt,
        models=section(cfg.models),
        sampling=of.sampling(cfg.evaluation.temperature),
        tokens=cfg.reward_model.tokens_per_batch,
        seed=of.base_seed,
    message:
        "Evaluating {wildcards.policy} on the validation prompts"
    shell:
        "python -m scripts.evaluate_policy {params.steering:q} {params.model:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q}"
        " --models {params.models:q}"
        " --responses-per-prompt {params.responses} --sampling {params.sampling:q}"
        " --tokens-per-batch {params.tokens} --seed {params.seed}"
        " --output-samples {output.sampled:q} --output-scored {output.scored:q} 2>&1 | tee {log}"


rule evaluate_soup:
    input:
        experts=of.soup_experts,
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        model=of.made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
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
        **jobs.on_one_gpu(8000, 64000),
        runtime=720,
    params:
        experts=input_flags("experts", "--expert"),
        model=of.scorer_flags,
        directions=section(cfg.directions),
        grid=json.dumps(cfg.evaluation.directions),
        objectives=section(cfg.objectives),
        responses=cfg.evaluation.responses_per_prompt,
        models=section(cfg.models),
        sampling=of.sampling(cfg.evaluation.temperature),
        tokens=cfg.reward_model.tokens_per_batch,
        seed=of.base_seed,
    message:
        "Evaluating Reward Soup on the validation prompts"
    shell:
        "python -m scripts.evaluate_soup {params.experts:q} {params.model:q}"
        " --directions {params.directions:q} --grid {params.grid:q} --prompts {input.prompts:q}"
        " --models {params.models:q}"
        " --objectives {params.objectives:q} --responses-per-prompt {params.responses}"
        " --sampling {params.sampling:q} --tokens-per-batch {params.tokens} --seed {params.seed}"
        " --output-samples {output.sampled:q} --output-scored {output.scored:q} 2>&1 | tee {log}"


rule sample_benchmark:
    input:
        policy=of.evaluated_policy,
        conditions=of.evaluated_conditions,
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
        **jobs.on_one_gpu(4000, 48000),
        runtime=720,
    params:
        steering=of.benchmark_flags,
        objective_names=OBJECTIVE_NAMES,
        models=section(cfg.models),
        sampling=of.benchmark_sampling,
        seed=of.base_seed,
    message:
        "Sampling {wildcards.policy} on the prompts of {wildcards.benchmark}"
    shell:
        "python -m scripts.sample_benchmark {params.steering:q} --prompts {input.prompts:q}"
        " --models {params.models:q}"
        " --objective-names {params.objective_names:q} --sampling {params.sampling:q} --seed {params.seed}"
        " --output {output.sampled:q} 2>&1 | tee {log}"


rule collect_validation_rewards:
    input:
        scored=expand(
            "results/{{experiment}}/evaluation/scored/{policy}.jsonl", policy=layout.policies()
        ),
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
        mem_mb=jobs.memory(2000),
        runtime=30,
    params:
        gold=["--gold", cfg.evaluation.gold] if cfg.evaluation.gold else [],
        scored=input_flags("scored"),
        objectives=section(cfg.objectives),
        seed=of.base_seed,
    message:
        "Collecting the validation rewards of all policies"
    shell:
        "python -m scripts.collect_validation_rewards {params.scored:q} {params.gold:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q} --seed {params.seed}"
        " --output-by-prompt {output.by_prompt:q} --output {output.rewards:q} 2>&1 | tee {log}"


if not isinstance(cfg.seed, int):

    # One table for all seeds, where a single seed has its own.
    rule collect_seeds:
        input:
            rewards=files_of(RUNS, "evaluation/validation_rewards.csv"),
            code=code("collect_seeds"),
        output:
            rewards=f"{RESULTS}/evaluation/validation_rewards.csv",
        log:
            f"{RESULTS}/logs/collect_seeds.log",
        localrule: True
        resources:
            mem_mb=jobs.memory(1000),
            runtime=10,
        params:
            rewards=input_flags("rewards"),
        message:
            "Collecting the validation rewards of all seeds"
        shell:
            "python -m scripts.collect_seeds {params.rewards:q} --output {output.rewards:q}"
            " 2>&1 | tee {log}"


# Prints and fails; makes nothing, so that it runs whenever it is asked for.
rule check_quickstart:
    input:
        rewards=files_of(RUNS, "evaluation/validation_rewards.csv"),
        annotations=files_of(RUNS, *shard_files("annotations/{shard}.jsonl", cfg.shards)),
        code=code("check_quickstart"),
    log:
        f"{RESULTS}/logs/check_quickstart.log",
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=10,
    params:
        runs=repeat("--run", RUNS),
        reference=REFERENCE,
    message:
        "Checking that the run shows what the paper claims"
    shell:
        "python -m scripts.check_quickstart {params.runs:q}"
        " --hypervolume-reference {params.reference} 2>&1 | tee {log}"
