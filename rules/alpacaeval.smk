# AlpacaEval 2: outputs in its own format, judged against the reference's (docs/evaluation.md).

if cfg.alpacaeval is not None:

    rule prepare_alpacaeval:
        input:
            source=local_sources([cfg.alpacaeval.reference]),
            code=code("prepare_alpacaeval"),
        output:
            prompts="results/{experiment}/alpacaeval/prompts.jsonl",
            reference="results/{experiment}/alpacaeval/reference_outputs.json",
        log:
            "results/{experiment}/logs/prepare_alpacaeval.log",
        benchmark:
            "results/{experiment}/benchmarks/prepare_alpacaeval.tsv"
        localrule: True
        resources:
            mem_mb=memory(1000),
            runtime=30,
        params:
            source=as_json(cfg.alpacaeval.reference),
            expected=cfg.alpacaeval.prompts,
        message:
            "Getting AlpacaEval's instructions"
        shell:
            "python -m scripts.prepare_alpacaeval --source {params.source:q}"
            " --expected {params.expected} --prompts {output.prompts:q}"
            " --reference {output.reference:q} 2>&1 | tee {log}"

    rule export_alpacaeval:
        input:
            sampled=expand(
                "results/{{experiment}}/alpacaeval/sampled/{policy}.jsonl",
                policy=alpacaeval_policies(),
            ),
            prompts="results/{experiment}/alpacaeval/prompts.jsonl",
            code=code("export_alpacaeval"),
        output:
            outputs=directory("results/{experiment}/alpacaeval/outputs"),
        log:
            "results/{experiment}/logs/export_alpacaeval.log",
        benchmark:
            "results/{experiment}/benchmarks/export_alpacaeval.tsv"
        localrule: True
        resources:
            mem_mb=memory(1000),
            runtime=10,
        params:
            sampled=lambda wildcards, input: repeat_flag("--sampled", input.sampled),
        message:
            "Writing outputs in AlpacaEval's format"
        shell:
            "python -m scripts.export_alpacaeval {params.sampled:q} --prompts {input.prompts:q}"
            " --output {output.outputs:q} 2>&1 | tee {log}"

    # One job for all policies: it says what everything costs before its first call. Answers are kept
    # in results/judgements, across runs and experiments.
    rule judge_alpacaeval:
        input:
            outputs="results/{experiment}/alpacaeval/outputs",
            reference="results/{experiment}/alpacaeval/reference_outputs.json",
            annotations=cfg.alpacaeval.judge.annotations or [],
            difficulty=cfg.alpacaeval.difficulty or [],
            code=code("judge_alpacaeval"),
        output:
            judged="results/{experiment}/alpacaeval/judged.json",
            annotations=directory("results/{experiment}/alpacaeval/annotations"),
        log:
            "results/{experiment}/logs/judge_alpacaeval.log",
        benchmark:
            "results/{experiment}/benchmarks/judge_alpacaeval.tsv"
        localrule: True
        resources:
            mem_mb=memory(4000),
            runtime=720,
        params:
            judge=as_json(cfg.alpacaeval.judge),
            difficulty=(
                ["--difficulty", cfg.alpacaeval.difficulty] if cfg.alpacaeval.difficulty else []
            ),
        message:
            f"Judging AlpacaEval's outputs, judge {cfg.alpacaeval.judge.kind}"
        shell:
            "python -m scripts.judge_alpacaeval --outputs {input.outputs:q}"
            " --reference {input.reference:q} --judge {params.judge:q} {params.difficulty:q}"
            " --keep {output.annotations:q} --output {output.judged:q} 2>&1 | tee {log}"

    rule collect_alpacaeval:
        input:
            judged=expand("{run}/alpacaeval/judged.json", run=RUNS),
            sampled=expand(
                "{run}/alpacaeval/sampled/{policy}.jsonl", run=RUNS, policy=alpacaeval_policies()
            ),
            code=code("collect_alpacaeval"),
        output:
            results=f"results/{cfg.experiment}/alpacaeval/results.csv",
        log:
            f"results/{cfg.experiment}/logs/collect_alpacaeval.log",
        benchmark:
            f"results/{cfg.experiment}/benchmarks/collect_alpacaeval.tsv"
        localrule: True
        resources:
            mem_mb=memory(1000),
            runtime=10,
        params:
            seeds=repeat_flag("--seed", cfg.seeds),
            judged=lambda wildcards, input: repeat_flag("--judged", input.judged),
            sampled=repeat_flag("--sampled", expand("{run}/alpacaeval/sampled", run=RUNS)),
            policies=",".join(alpacaeval_policies()),
            objectives=OBJECTIVES,
        message:
            "Collecting AlpacaEval's results"
        shell:
            "python -m scripts.collect_alpacaeval {params.seeds:q} {params.judged:q}"
            " {params.sampled:q} --policies {params.policies:q} --objectives {params.objectives:q}"
            " --output {output.results:q} 2>&1 | tee {log}"
