# Figures.


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
