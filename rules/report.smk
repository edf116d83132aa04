# Figures and tables: what people look at. Each is made from all seeds of the experiment.


rule plot_pareto_front:
    input:
        rewards=files_of(RUNS, "evaluation/prompt_rewards.parquet"),
        published=clone("results/published/figure4_validation_rewards.csv"),
        extra=[stamps.content(given.file) for given in cfg.figures.extra],
        code=code("plot_pareto_front", "results/published/figure4_validation_rewards.csv"),
    output:
        figure_files("figure4"),
    log:
        f"{RESULTS}/logs/plot_pareto_front.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_pareto_front.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(4000),
        runtime=30,
    params:
        rewards=input_flags("rewards", "--prompt-rewards"),
        objective_names=OBJECTIVE_NAMES,
        reference=REFERENCE,
        curve_points=cfg.steerlm.curve_points,
        uncertainty=cfg.figures.uncertainty,
        published="--draw-published" if cfg.figures.published else "",
        extra=["--extra", section(cfg.figures.extra)] if cfg.figures.extra else [],
        style=section(cfg.figures.style),
        experiment=cfg.experiment,
        folder=folder_of,
    message:
        "Drawing figure 4"
    shell:
        "python -m scripts.plot_pareto_front {params.rewards:q} --objective-names {params.objective_names:q}"
        " --hypervolume-reference {params.reference} --published {input.published:q}"
        " --curve-points {params.curve_points}"
        " {params.published} {params.extra:q} --uncertainty {params.uncertainty} --figure-style {params.style:q}"
        " --experiment {params.experiment} --output-figures {params.folder:q} > {log} 2>&1"


rule plot_overoptimisation:
    input:
        rewards=files_of(RUNS, "evaluation/prompt_rewards.parquet"),
        divergences=files_of(
            RUNS, *(f"evaluation/divergence/{p}.parquet" for p in layout.measured_policies())
        ),
        code=code("plot_overoptimisation"),
    output:
        figure_files("overoptimisation"),
    log:
        f"{RESULTS}/logs/plot_overoptimisation.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_overoptimisation.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(4000),
        runtime=30,
    params:
        variants=repeat("--variant", [f"{cfg.experiment}={run}" for run in RUNS]),
        objective_names=OBJECTIVE_NAMES,
        style=section(cfg.figures.style),
        experiment=cfg.experiment,
        folder=folder_of,
    message:
        "Drawing what is gained against how far policies move"
    shell:
        "python -m scripts.plot_overoptimisation {params.variants:q}"
        " --objective-names {params.objective_names:q} --figure-style {params.style:q}"
        " --experiment {params.experiment} --output-figures {params.folder:q} > {log} 2>&1"


rule plot_win_rates:
    input:
        results=f"{RESULTS}/alpacaeval/results.csv",
        published=clone("results/published/figure5_alpacaeval2.csv"),
        code=code("plot_win_rates", "results/published/figure5_alpacaeval2.csv"),
    output:
        figure_files("figure5"),
    log:
        f"{RESULTS}/logs/plot_win_rates.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_win_rates.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=10,
    params:
        objective_names=OBJECTIVE_NAMES,
        published="--draw-published" if cfg.figures.published else "",
        world="--world" if cfg.world else "",
        style=section(cfg.figures.style),
        experiment=cfg.experiment,
        folder=folder_of,
    message:
        "Drawing figure 5"
    shell:
        "python -m scripts.plot_win_rates --alpacaeval-results {input.results:q}"
        " --published {input.published:q} --objective-names {params.objective_names:q} {params.published}"
        " {params.world} --figure-style {params.style:q} --experiment {params.experiment}"
        " --output-figures {params.folder:q} > {log} 2>&1"


rule plot_samples:
    input:
        scored=files_of(
            RUNS,
            *(
                f"evaluation/scored_by/{layout.shown_scorer}/{p}.jsonl"
                for p in layout.last_policies(cfg.methods)
            ),
        ),
        judged=files_of(
            RUNS,
            *(
                f"evaluation/scored_by/judge/{p}.jsonl"
                for p in layout.last_policies(cfg.methods)
                if layout.has_judge
            ),
        ),
        prompts=f"{RUNS[0]}/data/prompts/validation.jsonl",
        code=code("plot_samples"),
    output:
        figure_files("figure1"),
        figure_files("response_length"),
        figure_files("reward_against_length"),
        multiext(f"{RESULTS}/tables/figure1.", "csv", "md", "tex"),
        samples=f"{RESULTS}/tables/samples.csv",
    log:
        f"{RESULTS}/logs/plot_samples.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_samples.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(4000),
        runtime=30,
    params:
        scored=input_flags("scored"),
        judged=input_flags("judged"),
        gold=["--gold", cfg.evaluation.gold] if cfg.evaluation.gold else [],
        objectives=section(cfg.objectives),
        shown=",".join(map(str, cfg.figures.prompts)),
        style=section(cfg.figures.style),
        experiment=cfg.experiment,
        figures=folder_of,
        tables=lambda wildcards, output: os.path.dirname(output.samples),
    message:
        "Drawing figure 1, response lengths, and reward against length"
    shell:
        "python -m scripts.plot_samples {params.scored:q} {params.judged:q} {params.gold:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q}"
        " --shown {params.shown} --figure-style {params.style:q}"
        " --experiment {params.experiment} --output-figures {params.figures:q}"
        " --output-tables {params.tables:q} > {log} 2>&1"


rule plot_reward_model:
    input:
        predictions=f"{RUNS[0]}/reward_model/predictions.parquet",
        metrics=f"{RUNS[0]}/reward_model/metrics.csv",
        ranking=f"{RUNS[0]}/reward_model/ranking.csv",
        judge_metrics=f"{RUNS[0]}/judge/metrics.csv" if layout.has_judge else [],
        judge_ranking=f"{RUNS[0]}/judge/ranking.csv" if layout.has_judge else [],
        code=code("plot_reward_model"),
    output:
        figure_files("reward_model"),
        multiext(f"{RESULTS}/tables/reward_model.", "md", "tex"),
        table=f"{RESULTS}/tables/reward_model.csv",
    log:
        f"{RESULTS}/logs/plot_reward_model.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_reward_model.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(4000),
        runtime=30,
    params:
        judge=(
            [
                "--judge-metrics",
                f"{RUNS[0]}/judge/metrics.csv",
                "--judge-ranking",
                f"{RUNS[0]}/judge/ranking.csv",
            ]
            if layout.has_judge
            else []
        ),
        models=cfg.reward_model.scoring,
        seeds=len(RUNS),
        style=section(cfg.figures.style),
        experiment=cfg.experiment,
        figures=folder_of,
        tables=lambda wildcards, output: os.path.dirname(output.table),
    message:
        "Drawing the reward model's predictions against labels"
    shell:
        "python -m scripts.plot_reward_model --predictions {input.predictions:q}"
        " --metrics {input.metrics:q} --ranking {input.ranking:q} {params.judge:q}"
        " --reward-models {params.models} --seeds {params.seeds} --figure-style {params.style:q}"
        " --experiment {params.experiment} --output-figures {params.figures:q}"
        " --output-tables {params.tables:q} > {log} 2>&1"


rule plot_policy_gradient:
    input:
        histories=layout.online_histories(),
        code=code("plot_policy_gradient"),
    output:
        figure_files("policy_gradient"),
    log:
        f"{RESULTS}/logs/plot_policy_gradient.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_policy_gradient.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=10,
    params:
        histories=input_flags("histories", "--history"),
        style=section(cfg.figures.style),
        experiment=cfg.experiment,
        folder=folder_of,
    message:
        "Drawing reward and KL of the policies that sampled as they trained"
    shell:
        "python -m scripts.plot_policy_gradient {params.histories:q} --figure-style {params.style:q}"
        " --experiment {params.experiment} --output-figures {params.folder:q} > {log} 2>&1"


# Reads the losses in the sidecars of the models.
rule plot_training_curves:
    input:
        models=files_of(RUNS, *layout.trained_models()),
        histories=layout.online_histories(),
        code=code("plot_training_curves"),
    output:
        figure_files("training_curves"),
    log:
        f"{RESULTS}/logs/plot_training_curves.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_training_curves.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=10,
    params:
        runs=repeat("--run", RUNS),
        models=repeat("--model", layout.trained_models()),
        histories=repeat("--history", layout.histories()),
        style=section(cfg.figures.style),
        experiment=cfg.experiment,
        folder=folder_of,
    message:
        "Drawing the training curves"
    shell:
        "python -m scripts.plot_training_curves {params.runs:q} {params.models:q} {params.histories:q}"
        " --figure-style {params.style:q} --experiment {params.experiment}"
        " --output-figures {params.folder:q} > {log} 2>&1"


# Reads the benchmark files of all jobs that are no figures: its inputs are what they lead to.
rule plot_costs:
    input:
        rewards=files_of(RUNS, "evaluation/prompt_rewards.parquet"),
        metrics=files_of(RUNS, "reward_model/metrics.csv"),
        benchmarks=layout.targets("alpacaeval") + layout.targets("rewardbench"),
        code=code("plot_costs"),
    output:
        figure_files("costs"),
        multiext(f"{RESULTS}/tables/costs.", "md", "tex"),
        table=f"{RESULTS}/tables/costs.csv",
    log:
        f"{RESULTS}/logs/plot_costs.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_costs.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=10,
    params:
        runs=repeat("--run", RUNS),
        stages=section(layout.method_stages()),
        style=section(cfg.figures.style),
        experiment=cfg.experiment,
        figures=folder_of,
        tables=lambda wildcards, output: os.path.dirname(output.table),
    message:
        "Drawing what the run cost"
    shell:
        "python -m scripts.plot_costs {params.runs:q} --stages {params.stages:q} --figure-style {params.style:q}"
        " --experiment {params.experiment} --output-figures {params.figures:q}"
        " --output-tables {params.tables:q} > {log} 2>&1"


rule make_table1:
    input:
        rewards=files_of(RUNS, "evaluation/prompt_rewards.parquet"),
        published=clone("results/published/table1_method_properties.csv"),
        code=code("make_table1", "results/published/table1_method_properties.csv"),
    output:
        multiext(f"{RESULTS}/tables/table1.", "csv", "md", "tex"),
        multiext(f"{RESULTS}/tables/comparison.", "csv", "md", "tex"),
    log:
        f"{RESULTS}/logs/make_table1.log",
    localrule: True
    resources:
        mem_mb=jobs.memory(4000),
        runtime=30,
    params:
        rewards=input_flags("rewards", "--prompt-rewards"),
        runs=repeat("--run", RUNS),
        stages=section(layout.method_stages()),
        objective_names=OBJECTIVE_NAMES,
        reference=REFERENCE,
        folder=folder_of,
    message:
        "Making table 1"
    shell:
        "python -m scripts.make_table1 {params.rewards:q} {params.runs:q} --stages {params.stages:q}"
        " --objective-names {params.objective_names:q} --hypervolume-reference {params.reference}"
        " --published {input.published:q} --output-tables {params.folder:q} > {log} 2>&1"


rule make_table2:
    input:
        win_rates=f"{RESULTS}/rewardbench/win_rates.csv",
        accuracy=f"{RESULTS}/rewardbench/reward_model_accuracy.csv",
        published=clone("results/published/table2_rewardbench_gemma2b.csv"),
        code=code("make_table2", "results/published/table2_rewardbench_gemma2b.csv"),
    output:
        multiext(f"{RESULTS}/tables/table2.", "csv", "md", "tex"),
        multiext(f"{RESULTS}/tables/rewardbench_reward_model.", "csv", "md", "tex"),
    log:
        f"{RESULTS}/logs/make_table2.log",
    localrule: True
    resources:
        mem_mb=jobs.memory(1000),
        runtime=10,
    params:
        objective_names=OBJECTIVE_NAMES,
        world="--world" if cfg.world else "",
        models=cfg.reward_model.scoring,
        experiment=cfg.experiment,
        folder=folder_of,
    message:
        "Making table 2"
    shell:
        "python -m scripts.make_table2 --win-rates {input.win_rates:q}"
        " --accuracy {input.accuracy:q} --published {input.published:q}"
        " --objective-names {params.objective_names:q} {params.world}"
        " --reward-models {params.models} --experiment {params.experiment}"
        " --output-tables {params.folder:q} > {log} 2>&1"


rule make_report:
    input:
        figures=expand(
            "{results}/figures/{figure}.{kind}",
            results=RESULTS,
            figure=layout.figure_names(),
            kind=["png", "csv", "md"],
        ),
        tables=expand(
            "{results}/tables/{table}.{kind}",
            results=RESULTS,
            table=layout.table_names(),
            kind=["md", "csv"],
        ),
        samples=f"{RESULTS}/tables/samples.csv" if layout.shows_dpa() else [],
        rewards=f"{RESULTS}/evaluation/validation_rewards.csv" if layout.shows_dpa() else [],
        deviations=clone("docs/deviations.md"),
        code=code(
            "make_report",
            "dpa/report/templates/report.html.j2",
            "dpa/report/templates/dial.js",
            "docs/deviations.md",
        ),
    output:
        page=report(
            f"{RESULTS}/report.html",
            caption=str(CLONE / "rules/caption.rst"),
            category="Report",
        ),
    log:
        f"{RESULTS}/logs/make_report.log",
    localrule: True
    resources:
        mem_mb=jobs.memory(1000),
        runtime=10,
    params:
        results=lambda wildcards, output: os.path.dirname(output.page),
        experiment=cfg.experiment,
        configuration=lambda wildcards: section(result_settings(cfg)),
        config_hash=config_hash(cfg),
        figures=repeat("--shown-figure", layout.figure_names()),
        tables=repeat("--shown-table", layout.table_names()),
    message:
        "Making the report"
    shell:
        "python -m scripts.make_report --results {params.results:q}"
        " --experiment {params.experiment} --configuration {params.configuration:q}"
        " --config-hash {params.config_hash} {params.figures:q} {params.tables:q}"
        " --deviations {input.deviations:q} --output {output.page:q} > {log} 2>&1"


# Reads the sidecars of everything in the experiment's folder: its inputs are what they lead to.
rule collect_provenance:
    input:
        reward_model=layout.targets("reward_model"),
        benchmarks=layout.targets("alpacaeval") + layout.targets("rewardbench"),
        figures=layout.targets("figures"),
        tables=layout.targets("tables"),
        report=layout.targets("report"),
        code=code("collect_provenance"),
    output:
        record=f"{RESULTS}/provenance.json",
    log:
        f"{RESULTS}/logs/collect_provenance.log",
    localrule: True
    resources:
        mem_mb=jobs.memory(1000),
        runtime=10,
    params:
        results=lambda wildcards: RESULTS,
        experiment=cfg.experiment,
        config_hash=config_hash(cfg),
        seeds=repeat("--seed", cfg.seeds),
    message:
        "Summing what every stage read, kept and dropped"
    shell:
        "python -m scripts.collect_provenance --results {params.results:q}"
        " --experiment {params.experiment} --config-hash {params.config_hash} {params.seeds}"
        " --output {output.record:q} > {log} 2>&1"


# Prints and fails; makes nothing, so that it runs whenever it is asked for. It looks at what is there:
# with inputs, Snakemake would make damaged artefacts again before anybody saw the damage.
rule verify:
    """Compare every artefact with its sidecar."""
    input:
        code=code("verify"),
    log:
        f"{RESULTS}/logs/verify.log",
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=240,
    params:
        results=RESULTS,
    message:
        "Checking every artefact against its sidecar"
    shell:
        "python -m scripts.verify --results {params.results:q} 2>&1 | tee {log}"
