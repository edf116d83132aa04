# RewardBench: generations against a reference policy's, and the reward model's own accuracy.

if cfg.rewardbench is not None:

    rule prepare_rewardbench:
        input:
            source=local_sources([cfg.rewardbench.data]),
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
            mem_mb=memory(2000),
            runtime=30,
        params:
            source=as_json(cfg.rewardbench.data),
            sections=as_json(cfg.rewardbench.sections),
        message:
            "Getting RewardBench's prompts"
        shell:
            "python -m scripts.prepare_rewardbench --source {params.source:q}"
            " --sections {params.sections:q} --items {output.choices:q}"
            " --prompts {output.prompts:q} 2>&1 | tee {log}"

    rule judge_rewardbench:
        input:
            samples="results/{experiment}/rewardbench/sampled/{policy}.jsonl",
            prompts="results/{experiment}/rewardbench/prompts.jsonl",
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
            gpu=GPU,
            cpus_per_gpu=cfg.compute.cpus_per_gpu,
            mem_mb=memory(4000, on_gpu=32000),
            runtime=720,
        params:
            judge=rewardbench_judge_flags(),
        message:
            "Judging {wildcards.policy} on RewardBench's prompts"
        shell:
            "python -m scripts.judge_rewardbench {params.judge:q} --samples {input.samples:q}"
            " --prompts {input.prompts:q} --output {output.judged:q} 2>&1 | tee {log}"

    rule score_rewardbench:
        input:
            choices="results/{experiment}/rewardbench/items.jsonl",
            model=made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
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
            gpu=GPU,
            cpus_per_gpu=cfg.compute.cpus_per_gpu,
            mem_mb=memory(4000, on_gpu=32000),
            runtime=240,
        params:
            model=reward_model_flags(),
            objectives=as_json(cfg.objectives),
            tokens=cfg.reward_model.tokens_per_batch,
        message:
            "Scoring RewardBench's own responses with the reward model"
        shell:
            "python -m scripts.score_rewardbench {params.model:q} --items {input.choices:q}"
            " --objectives {params.objectives:q} --tokens-per-batch {params.tokens}"
            " --output {output.rewards:q} 2>&1 | tee {log}"

    rule collect_rewardbench:
        input:
            rewards=expand("{run}/rewardbench/rewards.jsonl", run=RUNS),
            choices=expand("{run}/rewardbench/items.jsonl", run=RUNS),
            judged=expand(
                "{run}/rewardbench/judged/{policy}.jsonl", run=RUNS, policy=rewardbench_judged()
            ),
            code=code("collect_rewardbench"),
        output:
            rewardbench_tables(),
        log:
            f"results/{cfg.experiment}/logs/collect_rewardbench.log",
        benchmark:
            f"results/{cfg.experiment}/benchmarks/collect_rewardbench.tsv"
        localrule: True
        resources:
            mem_mb=memory(2000),
            runtime=10,
        params:
            runs=repeat_flag("--run", RUNS),
            seeds=repeat_flag("--seed", cfg.seeds),
            sections=as_json(cfg.rewardbench.sections),
            objectives=OBJECTIVES,
            tables=rewardbench_table_flags(),
        message:
            "Collecting RewardBench's results"
        shell:
            "python -m scripts.collect_rewardbench {params.runs:q} {params.seeds:q}"
            " --sections {params.sections:q} --objectives {params.objectives:q}"
            " {params.tables:q} 2>&1 | tee {log}"
