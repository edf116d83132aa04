# Figures and tables: what people look at. Each is made from all seeds of the experiment.


rule plot_pareto_front:
    input:
        rewards=expand("{run}/evaluation/prompt_rewards.parquet", run=RUNS),
        published="results/published/figure4_validation_rewards.csv",
        code=code("plot_pareto_front"),
    output:
        multiext(f"results/{cfg.experiment}/figures/figure4.", "pdf", "svg", "png", "csv", "md"),
    log:
        f"results/{cfg.experiment}/logs/plot_pareto_front.log",
    benchmark:
        f"results/{cfg.experiment}/benchmarks/plot_pareto_front.tsv"
    localrule: True
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        rewards=lambda wildcards, input: repeat_flag("--prompt-rewards", input.rewards),
        objectives=OBJECTIVES,
        reference=",".join(map(str, cfg.evaluation.hypervolume_reference)),
        uncertainty=cfg.figures.uncertainty,
        published="--draw-published" if cfg.figures.published else "",
        dpi=cfg.figures.dpi,
        experiment=cfg.experiment,
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "Drawing figure 4"
    shell:
        "python -m scripts.plot_pareto_front {params.rewards:q} --objectives {params.objectives:q}"
        " --hypervolume-reference {params.reference} --published {input.published:q}"
        " {params.published} --uncertainty {params.uncertainty} --dpi {params.dpi}"
        " --experiment {params.experiment} --output-dir {params.folder:q} 2>&1 | tee {log}"


rule plot_win_rates:
    input:
        results=f"results/{cfg.experiment}/alpacaeval/results.csv",
        published="results/published/figure5_alpacaeval2.csv",
        code=code("plot_win_rates"),
    output:
        multiext(f"results/{cfg.experiment}/figures/figure5.", "pdf", "svg", "png", "csv", "md"),
    log:
        f"results/{cfg.experiment}/logs/plot_win_rates.log",
    benchmark:
        f"results/{cfg.experiment}/benchmarks/plot_win_rates.tsv"
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        objectives=OBJECTIVES,
        published="--draw-published" if cfg.figures.published else "",
        world="--world" if cfg.world else "",
        dpi=cfg.figures.dpi,
        experiment=cfg.experiment,
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "Drawing figure 5"
    shell:
        "python -m scripts.plot_win_rates --results {input.results:q}"
        " --published {input.published:q} --objectives {params.objectives:q} {params.published}"
        " {params.world} --dpi {params.dpi} --experiment {params.experiment}"
        " --output-dir {params.folder:q} 2>&1 | tee {log}"


rule plot_samples:
    input:
        responses=expand(
            "{run}/evaluation/scored/{policy}.jsonl", run=RUNS, policy=last_policies(cfg.methods)
        ),
        prompts=f"{RUNS[0]}/data/prompts/validation.jsonl",
        code=code("plot_samples"),
    output:
        multiext(f"results/{cfg.experiment}/figures/figure1.", "pdf", "svg", "png", "csv", "md"),
        multiext(
            f"results/{cfg.experiment}/figures/response_length.", "pdf", "svg", "png", "csv", "md"
        ),
        multiext(
            f"results/{cfg.experiment}/figures/reward_against_length.",
            "pdf",
            "svg",
            "png",
            "csv",
            "md",
        ),
        multiext(f"results/{cfg.experiment}/tables/figure1.", "csv", "md", "tex"),
        samples=f"results/{cfg.experiment}/tables/samples.csv",
    log:
        f"results/{cfg.experiment}/logs/plot_samples.log",
    benchmark:
        f"results/{cfg.experiment}/benchmarks/plot_samples.tsv"
    localrule: True
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        responses=lambda wildcards, input: repeat_flag("--responses", input.responses),
        objectives=OBJECTIVES,
        shown=",".join(map(str, cfg.figures.prompts)),
        dpi=cfg.figures.dpi,
        experiment=cfg.experiment,
        figures=lambda wildcards, output: os.path.dirname(output[0]),
        tables=lambda wildcards, output: os.path.dirname(output.samples),
    message:
        "Drawing figure 1, response lengths, and reward against length"
    shell:
        "python -m scripts.plot_samples {params.responses:q} --prompts {input.prompts:q}"
        " --objectives {params.objectives:q} --shown {params.shown} --dpi {params.dpi}"
        " --experiment {params.experiment} --output-dir {params.figures:q}"
        " --tables-dir {params.tables:q} 2>&1 | tee {log}"


rule plot_reward_model:
    input:
        predictions=f"{RUNS[0]}/reward_model/predictions.parquet",
        metrics=f"{RUNS[0]}/reward_model/metrics.csv",
        ranking=f"{RUNS[0]}/reward_model/ranking.csv",
        code=code("plot_reward_model"),
    output:
        multiext(
            f"results/{cfg.experiment}/figures/reward_model.", "pdf", "svg", "png", "csv", "md"
        ),
        multiext(f"results/{cfg.experiment}/tables/reward_model.", "md", "tex"),
        table=f"results/{cfg.experiment}/tables/reward_model.csv",
    log:
        f"results/{cfg.experiment}/logs/plot_reward_model.log",
    benchmark:
        f"results/{cfg.experiment}/benchmarks/plot_reward_model.tsv"
    localrule: True
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        dpi=cfg.figures.dpi,
        experiment=cfg.experiment,
        figures=lambda wildcards, output: os.path.dirname(output[0]),
        tables=lambda wildcards, output: os.path.dirname(output.table),
    message:
        "Drawing the reward model's predictions against labels"
    shell:
        "python -m scripts.plot_reward_model --predictions {input.predictions:q}"
        " --metrics {input.metrics:q} --ranking {input.ranking:q} --dpi {params.dpi}"
        " --experiment {params.experiment} --output-dir {params.figures:q}"
        " --tables-dir {params.tables:q} 2>&1 | tee {log}"


rule plot_policy_gradient:
    input:
        histories=policy_gradient_histories(),
        code=code("plot_policy_gradient"),
    output:
        multiext(
            f"results/{cfg.experiment}/figures/policy_gradient.", "pdf", "svg", "png", "csv", "md"
        ),
    log:
        f"results/{cfg.experiment}/logs/plot_policy_gradient.log",
    benchmark:
        f"results/{cfg.experiment}/benchmarks/plot_policy_gradient.tsv"
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        histories=lambda wildcards, input: repeat_flag("--history", input.histories),
        dpi=cfg.figures.dpi,
        experiment=cfg.experiment,
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "Drawing the policy gradient's reward and KL curves"
    shell:
        "python -m scripts.plot_policy_gradient {params.histories:q} --dpi {params.dpi}"
        " --experiment {params.experiment} --output-dir {params.folder:q} 2>&1 | tee {log}"


# Reads the benchmark files of all jobs that are no figures: its inputs are what they lead to.
rule plot_costs:
    input:
        rewards=expand("{run}/evaluation/prompt_rewards.parquet", run=RUNS),
        metrics=expand("{run}/reward_model/metrics.csv", run=RUNS),
        benchmarks=alpacaeval_targets() + rewardbench_targets(),
        code=code("plot_costs"),
    output:
        multiext(f"results/{cfg.experiment}/figures/costs.", "pdf", "svg", "png", "csv", "md"),
        multiext(f"results/{cfg.experiment}/tables/costs.", "md", "tex"),
        table=f"results/{cfg.experiment}/tables/costs.csv",
    log:
        f"results/{cfg.experiment}/logs/plot_costs.log",
    benchmark:
        f"results/{cfg.experiment}/benchmarks/plot_costs.tsv"
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        runs=repeat_flag("--run", RUNS),
        parts=json.dumps(method_parts()),
        dpi=cfg.figures.dpi,
        experiment=cfg.experiment,
        figures=lambda wildcards, output: os.path.dirname(output[0]),
        tables=lambda wildcards, output: os.path.dirname(output.table),
    message:
        "Drawing what the run cost"
    shell:
        "python -m scripts.plot_costs {params.runs:q} --parts {params.parts:q} --dpi {params.dpi}"
        " --experiment {params.experiment} --output-dir {params.figures:q}"
        " --tables-dir {params.tables:q} 2>&1 | tee {log}"


rule make_table1:
    input:
        rewards=expand("{run}/evaluation/prompt_rewards.parquet", run=RUNS),
        published="results/published/table1_method_properties.csv",
        code=code("make_table1"),
    output:
        multiext(f"results/{cfg.experiment}/tables/table1.", "csv", "md", "tex"),
        multiext(f"results/{cfg.experiment}/tables/comparison.", "csv", "md", "tex"),
    log:
        f"results/{cfg.experiment}/logs/make_table1.log",
    localrule: True
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        rewards=lambda wildcards, input: repeat_flag("--prompt-rewards", input.rewards),
        runs=repeat_flag("--run", RUNS),
        parts=json.dumps(method_parts()),
        objectives=OBJECTIVES,
        reference=",".join(map(str, cfg.evaluation.hypervolume_reference)),
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "Making table 1"
    shell:
        "python -m scripts.make_table1 {params.rewards:q} {params.runs:q} --parts {params.parts:q}"
        " --objectives {params.objectives:q} --hypervolume-reference {params.reference}"
        " --published {input.published:q} --output-dir {params.folder:q} 2>&1 | tee {log}"


rule make_table2:
    input:
        win_rates=f"results/{cfg.experiment}/rewardbench/win_rates.csv",
        accuracy=f"results/{cfg.experiment}/rewardbench/reward_model_accuracy.csv",
        published="results/published/table2_rewardbench_gemma2b.csv",
        code=code("make_table2"),
    output:
        multiext(f"results/{cfg.experiment}/tables/table2.", "csv", "md", "tex"),
        multiext(f"results/{cfg.experiment}/tables/rewardbench_reward_model.", "csv", "md", "tex"),
    log:
        f"results/{cfg.experiment}/logs/make_table2.log",
    localrule: True
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        objectives=OBJECTIVES,
        world="--world" if cfg.world else "",
        experiment=cfg.experiment,
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "Making table 2"
    shell:
        "python -m scripts.make_table2 --win-rates {input.win_rates:q}"
        " --accuracy {input.accuracy:q} --published {input.published:q}"
        " --objectives {params.objectives:q} {params.world} --experiment {params.experiment}"
        " --output-dir {params.folder:q} 2>&1 | tee {log}"


rule make_report:
    input:
        figures=expand(
            "results/{experiment}/figures/{figure}.{kind}",
            experiment=cfg.experiment,
            figure=figure_names(),
            kind=["png", "csv", "md"],
        ),
        tables=expand(
            "results/{experiment}/tables/{table}.md",
            experiment=cfg.experiment,
            table=table_names(),
        ),
        samples=f"results/{cfg.experiment}/tables/samples.csv" if has_dpa() else [],
        rewards=f"results/{cfg.experiment}/evaluation/validation_rewards.csv" if has_dpa() else [],
        readme="README.md",
        template="dpa/report/templates/report.html.j2",
        code=code("make_report"),
    output:
        page=f"results/{cfg.experiment}/report.html",
    log:
        f"results/{cfg.experiment}/logs/make_report.log",
    localrule: True
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        results=lambda wildcards, output: os.path.dirname(output.page),
        experiment=cfg.experiment,
        config=lambda wildcards: as_json(cfg),
        config_hash=config_hash(cfg),
        figures=repeat_flag("--figure", figure_names()),
        tables=repeat_flag("--table", table_names()),
    message:
        "Making the report"
    shell:
        "python -m scripts.make_report --results {params.results:q}"
        " --experiment {params.experiment} --config {params.config:q}"
        " --config-hash {params.config_hash} {params.figures:q} {params.tables:q}"
        " --readme {input.readme:q} --output {output.page:q} 2>&1 | tee {log}"


# Reads the sidecars of everything in the experiment's folder: its inputs are what they lead to.
rule collect_provenance:
    input:
        reward_model=reward_model_targets(),
        benchmarks=alpacaeval_targets() + rewardbench_targets(),
        figures=figure_targets(),
        tables=table_targets(),
        report=report_targets(),
        code=code("collect_provenance"),
    output:
        record=f"results/{cfg.experiment}/provenance.json",
    log:
        f"results/{cfg.experiment}/logs/collect_provenance.log",
    localrule: True
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        results=lambda wildcards: RESULTS,
        experiment=cfg.experiment,
        config_hash=config_hash(cfg),
        seeds=repeat_flag("--seed", cfg.seeds),
    message:
        "Summing what every stage read, kept and dropped"
    shell:
        "python -m scripts.collect_provenance --results {params.results:q}"
        " --experiment {params.experiment} --config-hash {params.config_hash} {params.seeds}"
        " --output {output.record:q} 2>&1 | tee {log}"


# Prints and fails; makes nothing, so that it runs whenever it is asked for. It looks at what is there:
# with inputs, Snakemake would make damaged artefacts again before anybody saw the damage.
rule verify:
    input:
        code=code("verify"),
    log:
        f"results/{cfg.experiment}/logs/verify.log",
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=240,
    params:
        results=RESULTS,
    message:
        "Checking every artefact against its sidecar"
    shell:
        "python -m scripts.verify --results {params.results:q} 2>&1 | tee {log}"
