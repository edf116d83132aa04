"""What the workflow plans to do, without doing it."""

import json
import os
import re
import resource
import subprocess
from collections import Counter

import pytest
import yaml

from dpa.config.load import floating, hub_repositories, load_config, with_revisions
from dpa.config.revisions import read_lock
from dpa.plan.stages import stage_jobs
from dpa.runtime.run_environment import CLONE
from dpa.workflow.layout import Layout
from tests.support.hub_server import commit_of, hub_server
from tests.support.snakemake_runs import (
    TWO_PROCESSES,
    command,
    copy_repository,
    environment,
    jobs_in,
    planned_jobs,
    snakemake,
    unlock,
)

EXPERIMENTS = sorted(path.relative_to(CLONE) for path in CLONE.glob("experiments/**/*.yaml"))


#: What the experiments on hub data plan: shards x iterations x the stages of their loops.
COUNTS = {
    # DPA, RSF and the expert that Reward Soup does not share with RSF: four iterations each.
    "mistral-7b": {
        "prepare_data": 1,
        "annotate_responses": 8,
        "sample_responses": 8 * 4 * 3,
        "score_responses": 8 * 4 * 3,
        "select_responses": 4 * 3,
        "train_initial_policy": 1,
        "finetune_policy": 4 * 3,
        "train_steerlm": 1,
        "preflight": 1,
        "score_evaluation": 5 + 5,
        "sample_soup": 1,
    },
    "gemma-2b-harmless": {
        "annotate_responses": 8,
        "sample_responses": 8 * 3,
        "score_responses": 8 * 3,
        "finetune_policy": 3,
        "score_evaluation": 4 + 3,
    },
    # DPA and RSF; the DPO model is trained here.
    "single-gpu": {
        "annotate_responses": 1,
        "sample_responses": 3 * 2,
        "score_responses": 3 * 2,
        "finetune_policy": 3 * 2,
        "train_dpo": 1,
        "train_judge": 1,
        "score_evaluation": 2 * (4 + 4),
    },
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("clone"))


def test_quickstart_plans_every_stage(clone):
    jobs = planned_jobs(clone)
    shards, iterations = 2, 4
    assert jobs["sample_responses"] == jobs["score_responses"] == shards * iterations
    assert jobs["select_responses"] == jobs["finetune_policy"] == iterations
    assert jobs["annotate_responses"] == shards
    assert jobs["score_evaluation"] == iterations + 1 + 3
    assert jobs["measure_divergence"] == iterations
    # AlpacaEval judges DPA, SteerLM, SFT and DPO; RewardBench DPA against DPO.
    assert jobs["sample_evaluation"] == jobs["score_evaluation"] + 4 + 2
    assert jobs["judge_alpacaeval"] == 1
    assert jobs["judge_rewardbench"] == 2
    assert jobs["collect_alpacaeval"] == jobs["collect_rewardbench"] == 1
    assert jobs["plot_pareto_front"] == jobs["plot_samples"] == jobs["make_report"] == 1
    assert jobs["collect_provenance"] == 1
    assert "verify" not in jobs


@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.slow
def test_shards_and_iterations_scale_the_plan(clone, shards):
    jobs = planned_jobs(clone, "--config", f"shards={shards}", "dpa={iterations: 3}")
    assert jobs["sample_responses"] == jobs["score_responses"] == shards * 3
    assert jobs["finetune_policy"] == 3


@pytest.mark.slow
def test_members_add_jobs_that_train_and_score(clone):
    one = planned_jobs(clone)
    jobs = planned_jobs(clone, "--config", "reward_model={members: 3}", "dpa={pessimism: min}")
    scaled = ("train_reward_model", "annotate_responses", "score_responses", "score_evaluation")
    for rule in scaled:
        assert jobs.pop(rule) == 3 * one.pop(rule)
    assert jobs.pop("average_scores") == one["sample_evaluation"] - 6  # benchmarks are judged
    assert jobs == one


def pretend_run(folder, *config):
    """A run whose files are empty, but made as far as Snakemake knows."""
    for line in snakemake(folder, "--summary", *config).stdout.splitlines():
        if line.startswith("results/") and "\t" in line:
            path = folder / line.split("\t")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.mkdir if path.name in ("policy", "model", "base_model") else path.touch)()
    snakemake(folder, "--cores", "1", "--touch", "--forceall", *config)
    assert planned_jobs(folder, *config) == {}


@pytest.mark.slow
def test_another_seed_is_added_to_a_list_of_one(tmp_path):
    folder = copy_repository(tmp_path)
    benchmarks = ("alpacaeval=null", "rewardbench=null")
    small = ("--config", "methods=[dpa]", "dpa={iterations: 1}", *benchmarks)
    pretend_run(folder, *small, "seed=[0]")
    jobs = planned_jobs(folder, *small, "seed=[0, 1]")
    assert jobs["train_reward_model"] == jobs["finetune_policy"] == 1
    assert jobs["collect_seeds"] == jobs["plot_pareto_front"] == 1
    assert "preflight" not in jobs


#: Of the run that is finished: a loop of two iterations, and one of one.
SHARDS, ITERATIONS = 1, 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A clone with a run that is finished as far as Snakemake knows, and its configuration."""
    folder = copy_repository(tmp_path_factory.mktemp("finished"))
    loops = (f"dpa={{iterations: {ITERATIONS}}}", "rsf={iterations: 1}")
    config = ("--config", "methods=[dpa, sft, rsf]", "alpacaeval=null", "rewardbench=null",
              f"shards={SHARDS}", *loops)  # fmt: skip
    pretend_run(folder, *config)
    return folder, config


@pytest.mark.slow
def test_raising_members_reruns_selection_conditions_and_tables(finished):
    folder, config = finished
    shards, iterations = SHARDS, ITERATIONS
    jobs = planned_jobs(folder, *config, "reward_model={members: 3}")
    assert jobs["train_reward_model"] == 2
    assert jobs["annotate_responses"] == 2 * shards
    assert jobs["compute_conditions"] == 1
    assert jobs["select_responses"] == jobs["finetune_policy"] == iterations + 1
    # RSF's first iteration samples the SFT policy, as before; DPA's first has other conditions.
    assert jobs["sample_responses"] == iterations * shards
    assert jobs["score_responses"] == (3 * iterations + 2) * shards
    assert {"average_scores", "make_table1", "plot_pareto_front"} <= set(jobs)
    kept = {"pretrain_base_model", "train_sft", "train_initial_policy", "prepare_data"}
    assert not kept & set(jobs)


@pytest.mark.slow
def test_feedback_goes_on_from_a_finished_run(finished):
    """Up to iteration 1's policy, and the samples of it, nothing depends on ratings of samples."""
    folder, config = finished
    jobs = planned_jobs(folder, *config, "feedback={annotator: {kind: gold}}")
    once = ("choose_samples_to_rate", "annotate_feedback", "retrain_reward_model",
            "annotate_replay", "score_responses", "select_responses", "finetune_policy",
            "sample_evaluation", "measure_divergence")  # fmt: skip
    assert {rule: jobs.get(rule) for rule in once} == dict.fromkeys(once, 1)
    assert jobs["score_evaluation"] == 2  # by the first reward model, and by its own
    kept = {"train_reward_model", "annotate_responses", "train_sft", "train_initial_policy",
            "compute_conditions", "sample_responses", "prepare_data"}  # fmt: skip
    assert not kept & set(jobs)


@pytest.mark.slow
def test_methods_not_listed_cost_nothing(clone):
    jobs = planned_jobs(clone, "--config", "methods=[dpa]")
    assert not {"pair_ratings", "train_dpo", "train_steerlm", "train_ppo"} & set(jobs)
    assert jobs["score_evaluation"] == 5
    # Without the reference there is nothing to compare with; the reward model's accuracy stays.
    assert jobs["sample_evaluation"] == 5 + 1
    assert "judge_rewardbench" not in jobs
    assert jobs["collect_rewardbench"] == 1


@pytest.mark.slow
def test_greedy_evaluation_has_no_divergence(clone):
    jobs = planned_jobs(clone, "--config", "evaluation={temperature: 0}")
    assert not {"measure_divergence", "plot_overoptimisation"} & set(jobs)


@pytest.mark.slow
def test_a_file_of_ones_own_numbers_is_an_input_of_figure_4(clone):
    (clone / "mine.csv").write_text("r_helpfulness,r_verbosity\n60,50\n")
    own = "figures={extra: [{label: mine, file: mine.csv}]}"
    figure = "results/quickstart/figures/figure4.csv"
    graph = snakemake(clone, "--filegraph", figure, "--config", own).stdout
    assert "results/.stamps/inputs/mine.csv-" in graph


@pytest.mark.slow
def test_a_benchmark_that_is_null_costs_nothing(clone):
    jobs = planned_jobs(clone, "--config", "alpacaeval=null", "rewardbench=null")
    assert jobs["sample_evaluation"] == jobs["score_evaluation"]
    names = ("alpacaeval", "rewardbench")
    assert not [job for job in jobs if any(name in job for name in names)]


@pytest.mark.slow
def test_seeds_share_the_benchmarks_tables(clone):
    jobs = planned_jobs(clone, "--config", "seed=[3, 4]", "--", "alpacaeval", "rewardbench")
    assert jobs["judge_alpacaeval"] == 2
    assert jobs["judge_rewardbench"] == 4
    assert jobs["collect_alpacaeval"] == jobs["collect_rewardbench"] == 1


@pytest.mark.slow
def test_methods_share_what_they_have_in_common(clone):
    jobs = planned_jobs(clone, "--config", "experiment=quickstart-comparison")
    shards = 2
    # DPA, RSF, RiC 4 each, directional DPO 3; one of Reward Soup's experts is RSF's, the other 4.
    assert jobs["sample_responses"] == shards * (4 + 4 + 4 + 3 + 4)
    assert jobs["finetune_policy"] == 4 + 4 + 4
    assert jobs["select_pairs"] == jobs["train_directional_dpo"] == 3
    assert jobs["reject_responses"] == jobs["train_ric"] == 4
    assert jobs["train_ppo"] == jobs["sample_soup"] == jobs["plot_policy_gradient"] == 1
    # SteerLM's own row, and RiC's offline stage.
    assert jobs["train_steerlm"] == jobs["prepare_ric"] == 1
    assert jobs["train_online_dpo"] == 1
    # DPA 5, RiC 4, directional DPO 3, SFT, SteerLM, DPO, PPO, RSF, Reward Soup, online DPO, and
    # best of n twice.
    assert jobs["score_evaluation"] == 5 + 4 + 3 + 7 + 2
    assert jobs["sample_candidates"] == jobs["score_candidates"] == jobs["choose_best"] == 2


@pytest.mark.slow
def test_rewards_in_context_alone(clone):
    settings = ("methods=[ric]", "ric={iterations: 2}", "reward_model={members: 2}", "shards=1")
    jobs = planned_jobs(clone, "baselines", "--config", *settings)
    assert jobs["train_steerlm"] == jobs["prepare_ric"] == 1
    assert jobs["sample_responses"] == jobs["reject_responses"] == jobs["train_ric"] == 2
    assert jobs["score_responses"] == 2 * 2
    assert jobs["sample_evaluation"] == 2  # of its iterations; SteerLM is no row of its own
    assert not {"train_initial_policy", "compute_conditions", "select_responses"} & set(jobs)


@pytest.mark.slow
def test_best_of_n_trains_what_it_samples_and_no_more(clone):
    jobs = planned_jobs(
        clone, "baselines", "--config", "methods=[best_of_n_steerlm]", "reward_model={members: 2}"
    )
    assert jobs["train_steerlm"] == jobs["sample_candidates"] == jobs["choose_best"] == 1
    assert jobs["score_candidates"] == jobs["score_evaluation"] == 2
    assert "sample_evaluation" not in jobs
    assert "train_initial_policy" not in jobs


@pytest.mark.slow
def test_rsf_from_dpas_first_pool_samples_nothing_for_its_first_iteration(clone):
    shards, methods = 2, "methods=[dpa, rsf]"
    jobs = planned_jobs(clone, "--config", methods, "rsf={first_candidates: dpa}")
    assert jobs["sample_responses"] == jobs["score_responses"] == shards * (4 + 3)
    assert jobs["select_responses"] == jobs["finetune_policy"] == 4 + 4
    config = load_config({"methods": ["dpa", "rsf"], "rsf": {"first_candidates": "dpa"}})
    layout = Layout(config)
    found = Counter(job.rule for job in stage_jobs(config, layout.trained_stages(), []))
    assert found["sample_responses"] == jobs["sample_responses"]


@pytest.mark.slow
def test_a_judge_costs_a_scoring_and_no_sampling(clone):
    plain = planned_jobs(clone)
    jobs = planned_jobs(clone, "--config", "evaluation={judge: {share: 0.2}}")
    assert jobs.pop("train_judge") == 1
    assert jobs.pop("score_evaluation") == 2 * plain.pop("score_evaluation")
    assert jobs.pop("evaluate_reward_model") == 2 * plain.pop("evaluate_reward_model")
    assert jobs == plain
    outputs = "outputs: {helpfulness: {q: 1}, verbosity: {l: 1}}"
    given = planned_jobs(clone, "--config", f"evaluation={{judge: {{path: mine, {outputs}}}}}")
    assert given == plain | {"score_evaluation": 16, "evaluate_reward_model": 2}


@pytest.mark.slow
def test_the_judges_choice_is_what_benchmarks_take(clone):
    judge = "evaluation={judge: {share: 0.2}}"
    plain = planned_jobs(clone, "--config", judge)
    chosen = planned_jobs(clone, "--config", judge, "dpa={choose_iteration: judge}")
    assert chosen == plain | {"choose_iteration": 1, "make_chosen": 1}
    commands = snakemake(
        clone, "-n", "-p", "--config", judge, "dpa={choose_iteration: judge}"
    ).stdout  # fmt: skip
    sampled = [line for line in commands.splitlines() if "scripts.sample_evaluation" in line]
    from_choice = [line for line in sampled if "results/quickstart/dpa/chosen/policy" in line]
    assert sorted(line.split(" --output ")[1].split()[0] for line in from_choice) == [
        "results/quickstart/alpacaeval/sampled/dpa.jsonl",
        "results/quickstart/rewardbench/sampled/dpa.jsonl",
    ]


@pytest.mark.slow
def test_experts_may_be_ppos(clone):
    jobs = planned_jobs(
        clone, "--config", "methods=[dpa,reward_soup]", "reward_soup={experts: ppo}"
    )
    assert jobs["train_ppo"] == 2
    assert jobs["finetune_policy"] == 4


@pytest.mark.slow
def test_seeds_repeat_the_experiment_and_share_tables(clone):
    jobs = planned_jobs(clone, "--config", "seed=[3, 4, 5]", "methods=[dpa, sft]")
    assert jobs["train_reward_model"] == 3
    assert jobs["collect_validation_rewards"] == 3
    assert jobs["collect_seeds"] == jobs["make_table1"] == jobs["plot_pareto_front"] == 1
    jobs = planned_jobs(
        clone, "--config", "seed=[3, 4]", "--", "results/quickstart/seed4/dpa/iter1/selected.jsonl"
    )
    assert jobs["sample_responses"] == 2


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=str)
@pytest.mark.slow
def test_every_experiment_plans(clone, experiment):
    """Without a network, and without the commits of hub repositories."""
    overlay = yaml.safe_load((CLONE / experiment).read_text())
    for ratings in overlay.get("data", {}).get("ratings", []):
        path = CLONE / ratings["train"]["path"]
        if ratings["format"] == "table" and not path.exists():
            pytest.skip(f"{path} is absent")
        if ratings["format"] == "table":
            target = clone / ratings["train"]["path"]
            target.parent.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.exists():
                target.parent.symlink_to(path.resolve().parent)
    jobs = planned_jobs(clone, "--config", f"experiment={experiment}")
    assert jobs["train_reward_model"] == 1


@pytest.mark.slow
def test_a_run_with_unlocked_revisions_is_refused_before_its_first_job(tmp_path):
    clone = copy_repository(tmp_path)
    unlock(clone)
    result = snakemake(clone, "--cores", "1", "--config", "experiment=mistral-7b", check=False)
    assert result.returncode != 0
    refusal = result.stdout.splitlines()[-1]
    assert refusal.startswith("error: revisions that are not fixed (not in revisions.lock.yaml: ")
    assert "mistralai/Mistral-7B-v0.1" in refusal
    assert "`snakemake --cores 1 lock_revisions --config experiment=mistral-7b`" in refusal
    assert not (clone / "results/mistral-7b/logs").exists()


@pytest.mark.slow
def test_lock_revisions_asks_the_hub_once_and_opens_the_experiment(tmp_path, monkeypatch):
    """Every repository of the experiment, from a hub on loopback, into the tracked file."""
    (tmp_path / "clone").mkdir()
    folder = copy_repository(tmp_path / "clone")
    unlock(folder)
    config = load_config({"experiment": "gemma-2b-harmless"})
    named = {(f"{found.kind}s", str(found.path)): None for _, found in hub_repositories(config)}
    with hub_server(named) as hub:
        for key, value in hub.environment(tmp_path / "cache").items():
            monkeypatch.setenv(key, value)
        target = ("--cores", "1", "lock_revisions", "--config", "experiment=gemma-2b-harmless")
        snakemake(folder, *target)
        assert sorted(hub.requests) == sorted(f"/api/{kind}/{name}" for kind, name in named)
        snakemake(folder, *target)
        assert len(hub.requests) == len(named)
    lock = read_lock(folder / "revisions.lock.yaml")
    assert lock.models["wandb/gemma-2b-zephyr-sft"] == commit_of("wandb/gemma-2b-zephyr-sft")
    assert floating(with_revisions(config, lock)) is None
    plan = snakemake(folder, "-n", "-p", "--config", "experiment=gemma-2b-harmless").stdout
    assert f"mistralai/Mistral-7B-v0.1@{commit_of('mistralai/Mistral-7B-v0.1')}" in plan
    assert "locked" not in re.sub(r"rule lock_revisions.*|revisions\.lock", "", plan)


@pytest.mark.slow
def test_256_shards_and_4_iterations_plan_in_seconds(clone):
    """Time of this process's children, so that other load on the machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = command("-n", "--config", "shards=256", "methods=[dpa]")
    done = subprocess.run(run, cwd=clone, env=environment(), text=True, capture_output=True)
    jobs = jobs_in(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert jobs["sample_responses"] == jobs["score_responses"] == 256 * 4
    assert jobs["annotate_responses"] == 256
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 20


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sead=1", r"sead: unknown key, did you mean 'seed'"),
        ("shards=two", r"shards: .*integer.*'two'"),
        ("dpa={iterations: -1}", r"dpa\.iterations"),
        ("methods=[sft,ppoo]", r"methods\.1: Input should be 'dpa', .*'directional_dpo'.*'sft'"),
        ("experiment=nonesuch", r"nonesuch\.yaml: no such file \(known experiments: .*quickstart"),
    ],
)
def test_bad_configuration_fails_first(clone, override, message):
    before = {path: path.stat().st_mtime_ns for path in (clone / "results").rglob("*")}
    result = snakemake(clone, "-n", "--config", override, check=False)
    assert result.returncode != 0
    assert re.search(message, result.stdout), result.stdout
    assert "Traceback" not in result.stdout
    found = {path: path.stat().st_mtime_ns for path in (clone / "results").rglob("*")}
    assert found == before


TRAINING_SCRIPTS = (
    "train_reward_model|train_sft|train_steerlm|finetune_policy|train_dpo|train_ppo|"
    "train_online_dpo"
)


def training_commands(clone, compute):
    output = snakemake(
        clone, "-n", "-p", "--config", "experiment=quickstart-comparison", f"compute={compute}"
    ).stdout
    shell = r"Shell command: trap : TERM;"
    assert f"{shell} python -m scripts.pretrain_base_model" in output  # always one process
    commands = re.findall(rf"{shell} (.*) -m scripts\.({TRAINING_SCRIPTS}) ", output)
    assert {name for _, name in commands} == set(TRAINING_SCRIPTS.split("|"))
    [reward_model] = {launcher for launcher, name in commands if name == "train_reward_model"}
    [others] = {launcher for launcher, name in commands if name != "train_reward_model"}
    return reward_model, others


@pytest.mark.slow
def test_training_is_launched_on_the_configured_processes_and_nodes(clone):
    reward_model, others = training_commands(clone, "{}")
    # Not Snakemake's numbers, which --cores lowers: with other threads sums round otherwise.
    assert reward_model == "env OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 python"
    assert others == "env OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 python"
    reward_model, others = training_commands(clone, "{training_processes: 2}")
    assert others == TWO_PROCESSES  # which tests of the training itself launch
    assert reward_model == others.replace("threads_per_process 1", "threads_per_process 2")
    reward_model, nodes = training_commands(
        clone, "{gpu: true, training_processes: 8, training_nodes: 3}"
    )
    assert reward_model == nodes
    assert nodes.startswith("srun ")
    assert "--nodes=3 --ntasks=3 --ntasks-per-node=1 --cpus-per-task=64 --gpus-per-node=8 " in nodes
    assert "--num_machines 3 --num_processes 24 " in nodes


@pytest.mark.slow
def test_the_profile_runs_another_experiment_when_told_so(clone):
    result = snakemake(clone, "-n", "--profile", "slurm", "--config", "experiment=quickstart")
    assert "results/quickstart/dpa/iter4/policy" in result.stdout
    assert "results/mistral-7b" not in result.stdout


@pytest.mark.slow
def test_the_profile_runs_the_papers_experiment(clone):
    # Another key on the command line does not change which experiment it is.
    output = snakemake(clone, "-n", "--profile", "slurm", "--config", "seed=1").stdout
    assert "results/mistral-7b/dpa/iter4/policy" in output
    assert "results/quickstart" not in output


@pytest.mark.slow
def test_an_iteration_can_be_asked_for_by_path(clone):
    jobs = planned_jobs(clone, "results/quickstart/dpa/iter1/selected.jsonl")
    assert jobs["sample_responses"] == 2
    assert "finetune_policy" not in jobs


def test_a_configfile_without_an_experiment_is_refused(clone, tmp_path):
    (tmp_path / "mine.yaml").write_text("methods: [dpa]\n")
    result = snakemake(clone, "-n", "--configfile", str(tmp_path / "mine.yaml"), check=False)
    assert result.returncode != 0
    assert f"--config experiment={tmp_path}/mine.yaml" in result.stdout


def test_conda_environments_are_refused(clone):
    result = snakemake(clone, "-n", "--sdm", "conda", check=False)
    assert result.returncode != 0
    assert "error: --sdm conda has nothing to make" in result.stdout
    assert "Traceback" not in result.stdout


APPTAINER = """#!/bin/sh
[ "$1" = --version ] && exec echo apptainer version 1.3.0
echo "$@" > "$APPTAINER_LOG"
for last; do :; done
exec bash -c "$last"
"""


@pytest.mark.slow
def test_apptainer_is_given_the_commands_and_its_image(tmp_path, monkeypatch):
    """Apptainer itself is not here; what Snakemake asks it for is."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").write_text(APPTAINER)
    (tmp_path / "bin/apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("APPTAINER_LOG", str(tmp_path / "asked"))
    clone = tmp_path / "clone"
    clone.mkdir()
    copy_repository(clone)
    run = ("--cores", "1", "--sdm", "apptainer", "--apptainer-args=--nv")
    run += ("results/quickstart/data/raw/unseen_prompts.jsonl",)
    refused = snakemake(clone, *run, check=False)
    assert refused.returncode != 0
    assert "error: " in refused.stdout
    assert "apptainer build --build-arg LOCK=envs/vllm.lock envs/dpa.sif envs/dpa" in refused.stdout
    assert not (tmp_path / "asked").exists()
    (clone / "envs/dpa.sif").touch()
    snakemake(clone, *run)
    asked = (tmp_path / "asked").read_text()
    assert re.match(
        rf"exec --home {clone} --nv .*envs/dpa\.sif bash -c .*"
        r"python -m scripts\.make_quickstart_data ",
        asked, re.DOTALL,
    )  # fmt: skip


def test_another_seed_does_not_replace_a_run(tmp_path):
    clone = copy_repository(tmp_path)
    sidecar = clone / "results/quickstart/data/ratings.jsonl.meta.json"
    sidecar.parent.mkdir(parents=True)
    sidecar.write_text('{"base_seed": "3"}')
    result = snakemake(clone, "--cores", "1", check=False)
    assert result.returncode != 0
    assert "--config 'seed=[3, 0]'" in result.stdout.splitlines()[-1]
    assert not (clone / "results/quickstart/logs").exists()


def test_a_run_says_what_a_stopped_rerun_left(tmp_path):
    """Snakemake itself takes it for finished."""
    folder = copy_repository(tmp_path)
    data = folder / "results/quickstart/data"
    data.mkdir(parents=True)
    (data / "ratings.jsonl").write_text("")
    os.utime(data / "ratings.jsonl", (2e9, 2e9))  # newer than all code
    for name, made_from in (("ratings.jsonl", ["raw/a"]), ("raw/a", [])):
        sidecar = data / f"{name}.meta.json"
        sidecar.parent.mkdir(exist_ok=True)
        inputs = {f"results/quickstart/data/{i}": "0" * 64 for i in made_from}
        sidecar.write_text(json.dumps({"inputs": inputs}))
    printed = snakemake(folder, "-n", "--", "results/quickstart/data/ratings.jsonl").stdout
    assert printed.count("--forcerun results/quickstart/data/raw/a") == 1
    assert "Nothing to be done" in printed


def test_every_rule_says_what_it_does():
    listed = snakemake(CLONE, "--list", "--config", "experiment=quickstart-comparison").stdout
    rules = [line for line in listed.splitlines() if re.match(r"[a-z_0-9]+( \(|$)", line)]
    assert len(rules) > 60
    assert not [line for line in rules if " (" not in line]
