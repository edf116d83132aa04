# Figures and tables.


rule plot_pareto_front:
    input:
        rewards="results/{experiment}/evaluation/validation_rewards.csv",
        code=code("plot_pareto_front"),
    output:
        pdf="results/{experiment}/figures/figure4.pdf",
        svg="results/{experiment}/figures/figure4.svg",
        png="results/{experiment}/figures/figure4.png",
    log:
        "results/{experiment}/logs/plot_pareto_front.log",
    benchmark:
        "results/{experiment}/benchmarks/plot_pareto_front.tsv"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        objectives=OBJECTIVES,
        title=f"Figure 4, experiment {cfg.experiment}",
    message:
        "Drawing figure 4"
    shell:
        "python -m scripts.plot_pareto_front --rewards {input.rewards:q}"
        " --objectives {params.objectives:q} --title {params.title:q} --output {output.pdf:q}"
        " --output {output.svg:q} --output {output.png:q} 2>&1 | tee {log}"


rule plot_policy_gradient:
    input:
        histories=policy_gradient_histories(),
        code=code("plot_policy_gradient"),
    output:
        pdf="results/{experiment}/figures/policy_gradient.pdf",
        svg="results/{experiment}/figures/policy_gradient.svg",
        png="results/{experiment}/figures/policy_gradient.png",
    log:
        "results/{experiment}/logs/plot_policy_gradient.log",
    benchmark:
        "results/{experiment}/benchmarks/plot_policy_gradient.tsv"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        histories=lambda wildcards, input: repeat_flag("--history", input.histories),
        title=f"PPO row, experiment {cfg.experiment}",
    message:
        "Drawing the policy gradient's reward and KL curves"
    shell:
        "python -m scripts.plot_policy_gradient {params.histories:q} --title {params.title:q}"
        " --output {output.pdf:q} --output {output.svg:q} --output {output.png:q}"
        " 2>&1 | tee {log}"


rule make_table1:
    input:
        rewards=expand("{run}/evaluation/prompt_rewards.parquet", run=RUNS),
        published="results/published/table1_method_properties.csv",
        code=code("make_table1"),
    output:
        multiext(
            f"results/{cfg.experiment}/tables/",
            "table1.csv",
            "table1.md",
            "comparison.csv",
            "comparison.md",
        ),
    log:
        f"results/{cfg.experiment}/logs/make_table1.log",
    resources:
        mem_mb=4000,
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
