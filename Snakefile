# The pipeline: raw ratings -> reward model -> iterated rejection sampling -> steerable policy.
# Configuration is checked before anything else; rules are in rules/, their bodies in scripts/.


include: "rules/common.smk"


wildcard_constraints:
    experiment=ANY_RUN,
    loop=LOOP_PATTERN,
    member=MEMBER_PATTERN,
    iteration=r"\d+",
    shard=r"\d+",
    direction=DIRECTION_PATTERN,
    policy=r"[a-z_]+(-\d+)?",
    benchmark=r"evaluation|alpacaeval|rewardbench",
    scorer="|".join([*layout.scorers(), *layout.selectors()]),


# Used with --sdm apptainer only; built by: apptainer build envs/dpa.sif envs/dpa.def
container: clone("envs/dpa.sif")


include: "rules/data.smk"
include: "rules/reward.smk"
include: "rules/align.smk"
include: "rules/feedback.smk"
include: "rules/baselines.smk"
include: "rules/evaluate.smk"
include: "rules/alpacaeval.smk"
include: "rules/rewardbench.smk"
include: "rules/report.smk"
include: "rules/benchmarks.smk"


stamps.save()
if workflow.is_main_process and (message := hooks.stopped_rerun_message(layout)):
    say(message)


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
    """Everything: reward model, policies, benchmarks, figures, tables, report."""
    default_target: True
    input:
        layout.targets("reward_model"),
        layout.targets("alpacaeval"),
        layout.targets("rewardbench"),
        layout.targets("figures"),
        layout.targets("tables"),
        layout.targets("report"),
        layout.targets("provenance"),


rule reward_model:
    """The reward model, and how it agrees with held-out ratings."""
    input:
        layout.targets("reward_model"),


rule dpa:
    """The policies of DPA's iterations."""
    input:
        layout.targets("dpa"),


rule baselines:
    """The policies of the other methods."""
    input:
        layout.targets("baselines"),


rule alpacaeval:
    """AlpacaEval 2: outputs, judgements, win rates."""
    input:
        layout.targets("alpacaeval"),


rule rewardbench:
    """RewardBench: the policies' generations and the reward model's accuracy."""
    input:
        layout.targets("rewardbench"),


rule figures:
    """Figures 1, 4, 5 and those of over-optimisation, costs and the reward model."""
    input:
        layout.targets("figures"),


rule tables:
    """Tables 1 and 2, and the comparison of methods."""
    input:
        layout.targets("tables"),


rule report:
    """The page report.html, with what it shows."""
    input:
        layout.targets("report"),


rule benchmarks:
    """What docs/measurements.md quotes about speed; no part of an experiment."""
    input:
        "results/benchmarks/measure_scoring.txt",
        "results/benchmarks/measure_sampling.txt",
        "results/benchmarks/measure_training.txt",
        "results/benchmarks/measure_startup.txt",
        "results/benchmarks/measure_selection.txt",
        "results/benchmarks/measure_tokenising.txt",


# `snakemake --list` shows what a job says when it runs.
for each in workflow.rules:
    each.docstring = each.docstring or (each.message or "").replace("{wildcards.", "{")


onstart:
    check_before_jobs()
    say(hooks.start_message(layout))


onsuccess:
    say(hooks.success_message(layout))
