# The pipeline: raw ratings -> reward model -> iterated rejection sampling -> steerable policy.
# Configuration is checked before anything else; rules are in rules/, their bodies in scripts/.


include: "rules/common.smk"


wildcard_constraints:
    experiment=ANY_RUN,
    loop=r"dpa|directional_dpo|rsf/[\d_-]+",
    iteration=r"\d+",
    shard=r"\d+",
    direction=r"[\d_-]+",
    policy=r"[a-z_]+(-\d+)?",
    benchmark=r"alpacaeval|rewardbench",


# Used with --sdm apptainer only; built by: apptainer build envs/dpa.sif envs/dpa.def
container: "envs/dpa.sif"


include: "rules/data.smk"
include: "rules/reward.smk"
include: "rules/align.smk"
include: "rules/baselines.smk"
include: "rules/evaluate.smk"
include: "rules/alpacaeval.smk"
include: "rules/rewardbench.smk"
include: "rules/report.smk"
include: "rules/benchmarks.smk"


localrules:
    all,
    lock_revisions,
    reward_model,
    dpa,
    baselines,
    alpacaeval,
    rewardbench,
    figures,
    tables,
    report,
    benchmarks,


rule all:
    default_target: True
    input:
        reward_model_targets(),
        alpacaeval_targets(),
        rewardbench_targets(),
        figure_targets(),
        table_targets(),
        report_targets(),
        provenance_targets(),


rule reward_model:
    input:
        reward_model_targets(),


rule dpa:
    input:
        dpa_targets(),


rule baselines:
    input:
        baseline_targets(),


rule alpacaeval:
    input:
        alpacaeval_targets(),


rule rewardbench:
    input:
        rewardbench_targets(),


rule figures:
    input:
        figure_targets(),


rule tables:
    input:
        table_targets(),


rule report:
    input:
        report_targets(),


rule benchmarks:
    input:
        "results/benchmarks/measure_scoring.txt",
        "results/benchmarks/measure_sampling.txt",
        "results/benchmarks/measure_training.txt",
        "results/benchmarks/measure_startup.txt",
        "results/benchmarks/measure_selection.txt",


onstart:
    refuse_floating_revisions()
    check_again()
    start_message()


onsuccess:
    success_message()
