# RewardBench: generations against a reference policy's, and the reward model's own accuracy.

if cfg.rewardbench is not None:

    rule prepare_rewardbench:
        input:
            source=of.sources([cfg.rewardbench.data]),
            code=code("prepare_rewardbench"),
        output:
            choices="results/{experiment}/rewardbench/items.jsonl",
            prompts="results/{experiment}/rewardbench/prompts.jsonl",
        log:
            "results/{experiment}/logs/prepare_rewardbench.log",
        benchmark:
            "results/{experiment}/benchmarks/prepare_rewardbench.tsv"
        localrule: True
        resources:
            mem_mb=jobs.memory(2000),
            runtime=30,
        params:
            source=section(cfg.rewardbench.data),
            sections=section(cfg.rewardbench.sections),
        message:
            "Getting RewardBench's prompts"
        shell:
            "python -m scripts.prepare_rewardbench --source {params.source:q}"
            " --sections {params.sections:q} --output-items {output.choices:q}"
            " --output-prompts {output.prompts:q} > {log} 2>&1"

    rule judge_rewardbench:
        input:
            samples="results/{experiment}/rewardbench/sampled/{policy}.jsonl",
            prompts="results/{experiment}/rewardbench/prompts.jsonl",
            judge=of.made_or_given(cfg.rewardbench.judge, []),
            code=code("judge_rewardbench"),
            preflight=PREFLIGHT,
        output:
            judged="results/{experiment}/rewardbench/judged/{policy}.jsonl",
        log:
            "results/{experiment}/logs/judge_rewardbench/{policy}.log",
        benchmark:
            "results/{experiment}/benchmarks/judge_rewardbench/{policy}.tsv"
        threads: cfg.threads
        resources:
            **jobs.on_one_gpu(4000, 32000),
            runtime=720,
        params:
            models=section(cfg.models),
            judge=flags.preference_judge(layout),
        message:
            "Judging {wildcards.policy} on RewardBench's prompts"
        shell:
            "python -m scripts.judge_rewardbench {params.judge:q} --samples {input.samples:q}"
            " --models {params.models:q}"
            " --prompts {input.prompts:q} --output {output.judged:q} > {log} 2>&1"

    rule score_rewardbench:
        input:
            choices="results/{experiment}/rewardbench/items.jsonl",
            model=of.made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
            code=code("score_rewardbench"),
            preflight=PREFLIGHT,
        output:
            rewards="results/{experiment}/rewardbench/rewards.jsonl",
        log:
            "results/{experiment}/logs/score_rewardbench.log",
        benchmark:
            "results/{experiment}/benchmarks/score_rewardbench.tsv"
        threads: cfg.threads
        resources:
            **jobs.on_one_gpu(4000, 32000),
            runtime=240,
        params:
            model=of.scorer_flags,
            objectives=section(cfg.objectives),
            tokens=cfg.reward_model.tokens_per_batch,
        message:
            "Scoring RewardBench's own responses with the reward model"
        shell:
            "python -m scripts.score_rewardbench {params.model:q} --items {input.choices:q}"
            " --objectives {params.objectives:q} --tokens-per-batch {params.tokens}"
            " --output {output.rewards:q} > {log} 2>&1"

    rule collect_rewardbench:
        input:
            rewards=files_of(RUNS, "rewardbench/rewards.jsonl"),
            choices=files_of(RUNS, "rewardbench/items.jsonl"),
            judged=files_of(
                RUNS,
                *(f"rewardbench/judged/{policy}.jsonl" for policy in layout.rewardbench_judged()),
            ),
            code=code("collect_rewardbench"),
        output:
            layout.rewardbench_tables(),
        log:
            f"{RESULTS}/logs/collect_rewardbench.log",
        benchmark:
            f"{RESULTS}/benchmarks/collect_rewardbench.tsv"
        localrule: True
        resources:
            mem_mb=jobs.memory(2000),
            runtime=10,
        params:
            runs=repeat("--run", RUNS),
            seeds=repeat("--seed", cfg.seeds),
            sections=section(cfg.rewardbench.sections),
            objective_names=OBJECTIVE_NAMES,
            tables=flags.rewardbench_tables(layout),
        message:
            "Collecting RewardBench's results"
        shell:
            "python -m scripts.collect_rewardbench {params.runs:q} {params.seeds:q}"
            " --sections {params.sections:q} --objective-names {params.objective_names:q}"
            " {params.tables:q} > {log} 2>&1"
