# AlpacaEval 2: outputs in its own format, judged against the reference's (docs/evaluation.md).

if cfg.alpacaeval is not None:

    rule prepare_alpacaeval:
        input:
            source=of.sources([cfg.alpacaeval.reference]),
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
            mem_mb=jobs.memory(1000),
            runtime=30,
        params:
            source=section(cfg.alpacaeval.reference),
            expected=cfg.alpacaeval.prompts,
        message:
            "Getting AlpacaEval's instructions"
        shell:
            "python -m scripts.prepare_alpacaeval --source {params.source:q}"
            " --expected {params.expected} --output-prompts {output.prompts:q}"
            " --output-reference {output.reference:q} > {log} 2>&1"

    rule export_alpacaeval:
        input:
            sampled=expand(
                "results/{{experiment}}/alpacaeval/sampled/{policy}.jsonl",
                policy=layout.alpacaeval_policies(),
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
            mem_mb=jobs.memory(1000),
            runtime=10,
        params:
            samples=input_flags("sampled", "--samples"),
        message:
            "Writing outputs in AlpacaEval's format"
        shell:
            "python -m scripts.export_alpacaeval {params.samples:q} --prompts {input.prompts:q}"
            " --output {output.outputs:q} > {log} 2>&1"

    # One job for all policies: it says what everything costs before its first call. Answers are kept
    # in results/judgements, across runs and experiments.
    rule judge_alpacaeval:
        input:
            outputs="results/{experiment}/alpacaeval/outputs",
            reference="results/{experiment}/alpacaeval/reference_outputs.json",
            annotations=of.files(cfg.alpacaeval.judge.annotations),
            difficulty=of.files(cfg.alpacaeval.difficulty),
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
            mem_mb=jobs.memory(4000),
            runtime=720,
        params:
            judge=section(cfg.alpacaeval.judge),
            # As a function: braces in its path are characters.
            difficulty=lambda wildcards: (
                ["--difficulty", cfg.alpacaeval.difficulty] if cfg.alpacaeval.difficulty else []
            ),
        message:
            f"Judging AlpacaEval's outputs, judge {cfg.alpacaeval.judge.kind}"
        shell:
            "python -m scripts.judge_alpacaeval --model-outputs {input.outputs:q}"
            " --reference-outputs {input.reference:q} --judge {params.judge:q} {params.difficulty:q}"
            " --output-annotations {output.annotations:q} --output {output.judged:q} > {log} 2>&1"

    rule collect_alpacaeval:
        input:
            judged=files_of(RUNS, "alpacaeval/judged.json"),
            sampled=files_of(
                RUNS,
                *(f"alpacaeval/sampled/{policy}.jsonl" for policy in layout.alpacaeval_policies()),
            ),
            code=code("collect_alpacaeval"),
        output:
            results=f"{RESULTS}/alpacaeval/results.csv",
        log:
            f"{RESULTS}/logs/collect_alpacaeval.log",
        benchmark:
            f"{RESULTS}/benchmarks/collect_alpacaeval.tsv"
        localrule: True
        resources:
            mem_mb=jobs.memory(1000),
            runtime=10,
        params:
            seeds=repeat("--seed", cfg.seeds),
            judged=input_flags("judged"),
            samples=repeat("--samples-dir", files_of(RUNS, "alpacaeval/sampled")),
            policies=",".join(layout.alpacaeval_policies()),
            objective_names=OBJECTIVE_NAMES,
        message:
            "Collecting AlpacaEval's results"
        shell:
            "python -m scripts.collect_alpacaeval {params.seeds:q} {params.judged:q}"
            " {params.samples:q} --policies {params.policies:q} --objective-names {params.objective_names:q}"
            " --output {output.results:q} > {log} 2>&1"
