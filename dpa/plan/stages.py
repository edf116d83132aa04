"""The jobs that make the folders of a run, without a DAG: for preflight, itself one of them.

The layout says which stages an experiment's methods consist of, and which policies are evaluated;
a test compares what comes of it with Snakemake's DAG.
"""

from collections.abc import Iterable, Sequence

from dpa.config.experiment import Config
from dpa.plan.table import downloaded_models
from dpa.plan.work import Experiment, Job, work_of_job
from dpa.registry import METHODS
from dpa.workflow.layout import Layout


def stage_jobs(config: Config, stages: Iterable[str], policies: Sequence[str]) -> list[Job]:
    """The jobs with a model of one seed: `stages` are folders below the run, `rsf/100_0/iter1` say.

    They have no GPUs and wait for nothing: it is their work that counts.
    """
    layout, members = Layout(config), config.reward_model.scoring
    scattered = {"sample_responses": config.shards, "score_responses": members * config.shards}
    jobs = _jobs("annotate_responses", members * config.shards)
    for scorer in layout.rated_scorers():
        jobs += _jobs("evaluate_reward_model", 1, {"scorer": scorer})
    if config.judge_share:
        jobs += _jobs("train_judge")
    if config.reward_model.path is None:
        jobs += _jobs("train_reward_model", config.reward_model.members)
    if config.reward_model.average:
        jobs += [*_jobs("probe_reward_model"), *_jobs("average_reward_models")]
    if config.base_model.path is None:
        jobs += _jobs("pretrain_base_model")
    every = dict.fromkeys(stages)
    if config.sft.path is None:
        every["sft"] = None
    for stage in every:
        loop, _, last = stage.rpartition("/")
        if last.startswith("iter") and last != "iter0":
            wildcards = {"loop": loop, "iteration": last.removeprefix("iter")}
            trained = METHODS[loop.partition("/")[0]].trained_by
            if not layout.takes_first_pool(loop, int(wildcards["iteration"])):
                for rule, count in scattered.items():
                    jobs += _jobs(rule, count, wildcards)
            jobs += _jobs(trained, 1, wildcards)
            if layout.has_own_reward_model(loop, int(wildcards["iteration"])):
                jobs += _jobs("retrain_reward_model", members, wildcards)
                jobs += _jobs("annotate_replay", members * config.shards, wildcards)
        else:
            rule = "initial_policy" if last == "iter0" else stage.partition("/")[0]
            jobs += _jobs(f"train_{rule}")
    for policy in policies:
        rule = "sample_soup" if policy == "reward_soup" else "sample_evaluation"
        if layout.sampled_policy(policy) != policy:
            rule = "sample_candidates"
            jobs += _jobs("score_candidates", members, {"policy": policy})
        jobs += _jobs(rule, 1, {"policy": policy, "benchmark": "evaluation"})
        for scorer in layout.scorers():
            jobs += _jobs("score_evaluation", 1, {"policy": policy, "scorer": scorer})
        for scorer in set(layout.selected_by(policy)) & set(layout.selectors()):
            jobs += _jobs("score_evaluation", 1, {"policy": policy, "scorer": scorer})
    for policy in layout.measured_policies():
        jobs += _jobs("measure_divergence", 1, {"policy": policy})
    benchmarks = {
        "alpacaeval": layout.alpacaeval_policies(), "rewardbench": layout.rewardbench_judged()
    }  # fmt: skip
    for benchmark, sampled in benchmarks.items():
        for policy in sampled:
            jobs += _jobs("sample_evaluation", 1, {"policy": policy, "benchmark": benchmark})
    return jobs


def stored_bytes(experiment: Experiment, jobs: Iterable[Job], seeds: int) -> float:
    """What a finished run of so many seeds keeps in its results folder."""
    return seeds * sum(work_of_job(job, experiment).keeps for job in jobs)


def download_bytes(experiment: Experiment) -> float:
    """What the hub's cache takes."""
    return downloaded_models(experiment) + experiment.sizes.downloads


def _jobs(rule: str, count: int = 1, wildcards: dict[str, str] | None = None) -> list[Job]:
    return [Job(rule, wildcards or {}, 0, 1, ())] * count
