# Everything in the rules that is not a rule: the configuration, and functions of wildcards.

import ast
import json
import os
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir)))

from dpa.config.load import ROOT, config_hash, floating, hub_repositories, load_config
from dpa.directions import direction_name, evaluation_directions, fixed_law, single_objectives
from dpa.errors import InputError
from dpa.config.base import is_commit
from dpa.config.revisions import LOCK_FILE
from dpa.plan.preflight import PREFLIGHT_VARIABLE, check_all, preflight_input
from dpa.runtime.run_environment import announce_run
from dpa.runtime.watchdog import HANG_MINUTES

# Without a configfile: directive, config holds what the command line says and nothing else.
try:
    cfg = load_config(config)
except InputError as error:
    sys.exit(f"error: {error}")

announce_run(
    config_hash(cfg),
    cfg.seed,
    {found.path: found.revision for _, found in hub_repositories(cfg) if found.revision},
    limits=cfg.limits.model_dump(),
    trusted=cfg.trust_remote_code,
)
os.environ[HANG_MINUTES] = str(cfg.compute.hang_minutes)

SHARDS = range(cfg.shards)
ITERATIONS = range(cfg.dpa.iterations + 1)
OBJECTIVES = ",".join(objective.name for objective in cfg.objectives)
LAW = cfg.directions.model_dump()
EVALUATION_SAMPLING = cfg.sampling.model_copy(update={"temperature": cfg.evaluation.temperature})

# {experiment} is the experiment's name; with several seeds that and /seed<n>, except for what is
# made from all seeds together.
SEED_OF = (
    {cfg.experiment: cfg.seeds[0]}
    if isinstance(cfg.seed, int)
    else {f"{cfg.experiment}/seed{seed}": seed for seed in cfg.seeds}
)
RUNS = [f"results/{run}" for run in SEED_OF]
ONE_SEED = "|".join(SEED_OF)
ANY_RUN = "|".join(dict.fromkeys([*SEED_OF, cfg.experiment]))

# What scalar methods and Reward Soup's experts optimise, by the name that it has in paths.
FIXED_DIRECTIONS = {direction_name(v): v for v in (cfg.scalar_direction, *single_objectives(LAW))}


#: GPUs of a job that needs one.
GPU = int(cfg.compute.gpu)


def memory(mb, on_gpu=None):
    """mem_mb of a job: `mb`, or `on_gpu` where jobs run on GPUs, for models are large there.

    Half as much again at each further attempt: the profile retries jobs.
    """
    first = on_gpu if on_gpu and cfg.compute.gpu else mb
    return lambda wildcards, attempt: first * (attempt + 1) // 2


#: Priority of the longest chain of jobs: reward model, SFT policy, every iteration. Where cores are
#: few it goes first; baselines, evaluations and figures find room beside it.
CRITICAL = 1


def training_resources(mb):
    """Resources of a training job, by the names that Snakemake's SLURM executor reads.

    On several nodes the job is declared as MPI's: only then does the executor leave it to the rule
    (see training_launcher) to start processes on the nodes. Memory is that of a node.
    """
    nodes, processes = cfg.compute.training_nodes, cfg.compute.training_processes
    resources = {
        "gpu": GPU * nodes * processes,
        "cpus_per_gpu": cfg.compute.cpus_per_gpu,
        "mem_mb": memory(mb * processes, on_gpu=64000 * processes),
    }
    if nodes > 1:
        # Without tasks_per_gpu=0 `tasks` would also be the number of tasks for each GPU.
        resources |= {"nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0, "mpi": "srun"}
    return resources


def training_threads(threads=cfg.threads):
    """CPU cores of a training job on one node: those of its GPUs, or `threads` per process."""
    per_process = cfg.compute.cpus_per_gpu if cfg.compute.gpu else threads
    return per_process * cfg.compute.training_processes


def training_launcher(threads=cfg.threads):
    """What starts a training script, before `-m scripts.<name>`.

    For a single process it is python, on a CPU with `threads`. For several it is accelerate's
    launcher, which on several nodes srun starts once on each, within the job: --overlap, because
    Snakemake's own job step holds the job's cores and GPUs. The processes meet at the node that
    this command runs on.

    A resource of the rule, not a param: when params change Snakemake would train finished models
    again, and the number of processes does not change a model.
    """
    nodes, processes = cfg.compute.training_nodes, cfg.compute.training_processes
    if cfg.compute.gpu:
        threads = cfg.threads
    elif nodes * processes == 1:
        # Snakemake sets these too, but lowers them with --cores: other threads round sums otherwise.
        return f"env OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} python"
    if nodes * processes == 1:
        return "python"
    # --multi_gpu is what starts several processes, on a CPU too; the script chooses the device.
    command = (
        f"accelerate launch --multi_gpu --num_machines {nodes} --num_processes {nodes * processes}"
        f" --num_cpu_threads_per_process {threads} --mixed_precision no --dynamo_backend no"
    )
    if nodes == 1:
        return f"{command} --main_process_port 0"
    gpus = f" --gpus-per-node={processes}" if cfg.compute.gpu else ""
    # Ranks come from the rendezvous. --machine_rank has no say in it, but at 0 accelerate would
    # check on every node that nobody listens at the port, the rendezvous included.
    return (
        f"srun --overlap --kill-on-bad-exit=1 --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1"
        f"{gpus} {command} --machine_rank 1 --rdzv_backend c10d --main_process_ip $(hostname)"
        " --main_process_port $((20000 + SLURM_JOB_ID % 40000))"
    )


RESULTS = f"results/{cfg.experiment}"

#: Proof of a passed preflight, for all seeds.
PREFLIGHT_REPORT = f"{RESULTS}/preflight.json"
PREFLIGHT = ancient(PREFLIGHT_REPORT)


def base_seed(wildcards):
    return SEED_OF[wildcards.experiment]


def as_json(section):
    """A section of the configuration as the one-line JSON that scripts take."""
    if isinstance(section, list):
        return json.dumps([item.model_dump(mode="json", by_alias=True) for item in section])
    return json.dumps(section.model_dump(mode="json", by_alias=True))


@cache
def imported(path):
    """The files of the library's modules that a file imports."""
    root = Path(workflow.basedir)
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dpa"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            stems = [root.joinpath(*name.split(".")) for name in names]
            files = [s.with_suffix(".py") for s in stems] + [s / "__init__.py" for s in stems]
            found.extend(file for file in files if file.exists())
    return found


@cache
def code(script):
    """A script and the library modules that it imports, directly or not.

    Listed as inputs, because Snakemake reruns a shell rule only when its command changes.
    """
    root = Path(workflow.basedir)
    found, queue = set(), [root / "scripts" / f"{script}.py"]
    while queue:
        path = queue.pop()
        if path not in found:
            found.add(path)
            queue.extend(imported(path))
    return sorted(os.path.relpath(path, root) for path in found)


def local_sources(sources):
    """The sources that are files or folders here (hub data sets are not inputs of a rule)."""
    return [source.path for source in sources if source.revision is None]


def unlocked_flags():
    """The hub repositories that have no commit yet, as the flags of lock_revisions."""
    return [
        part
        for _, found in hub_repositories(cfg)
        if found.revision and not is_commit(found.revision)
        for part in (f"--{found.kind}", found.path)
    ]


def refuse_floating_revisions():
    """Stop before the first job. Not when the DAG is built: a dry run needs no commits."""
    jobs = {job.rule.name for job in workflow.dag.needrun_jobs()}
    if jobs != {"lock_revisions"} and (problems := floating(cfg)):
        name = config.get("experiment", cfg.experiment)
        sys.exit(
            f"error: revisions that are not fixed ({problems}); run `snakemake --cores 1 "
            f"lock_revisions --config experiment={name}`, give the commits, or set allow_floating"
        )


def ratings_files():
    """The local files of all ratings, training and validation."""
    every = [s for r in cfg.data.ratings for s in (r.train, r.validation) if s is not None]
    return local_sources(every)


def repeat_flag(flag, values):
    """`--flag VALUE` for each value, as a list that :q quotes."""
    return [part for value in values for part in (flag, str(value))]


def world_flags():
    """Sizes of the quickstart's world as the flags of its script."""
    sizes = cfg.world.model_dump().items()
    return [part for key, n in sizes for part in (f"--{key.replace('_', '-')}", str(n))]


def made_or_given(section, made):
    """A model as a rule's input: the folder that the pipeline makes, or none when one is given."""
    return [] if section.path else made


def model_flags(flag, section, made, revision="--revision"):
    """`--flag MODEL [--revision COMMIT]` for a model made by the pipeline or given by config."""
    if section.path is None:
        return [flag, made]
    return [flag, section.path] + ([revision, section.revision] if section.revision else [])


def base_model_flags(flag="--base-model"):
    return model_flags(flag, cfg.base_model, "results/{experiment}/base_model")


def sft_flags(flag="--sft-policy"):
    return model_flags(flag, cfg.sft, "results/{experiment}/sft/policy")


def reward_model_flags(revision="--revision"):
    """The reward model, and the names that its outputs must have, in order."""
    made = "results/{experiment}/reward_model/model"
    flags = model_flags("--reward-model", cfg.reward_model, made, revision)
    return [*flags, "--attributes", ",".join(cfg.reward_model.attributes)]


def scorer_flags(revision="--revision"):
    """The reward model, and what runs it."""
    return [*reward_model_flags(revision), "--engine", cfg.reward_model.engine]


def loop_section(wildcards):
    """The section of the configuration that a loop goes by."""
    return getattr(cfg, wildcards.loop.split("/")[0])


def loop_law(wildcards):
    """Where a loop's directions come from: rsf/<direction> has that one."""
    method, _, direction = wildcards.loop.partition("/")
    return json.dumps(fixed_law(FIXED_DIRECTIONS[direction]) if direction else LAW)


def prompt_half(wildcards):
    """D1 for odd iterations, D2 for even ones (paper, section 3.1).

    Directional DPO that starts from DPA's first iteration, which D1 was for, goes on with D2.
    """
    ahead = wildcards.loop == "directional_dpo" and cfg.directional_dpo.start == "dpa"
    half = "d1" if (int(wildcards.iteration) + ahead) % 2 else "d2"
    return f"results/{wildcards.experiment}/data/prompts/{half}.jsonl"


def samples_steerlm(wildcards):
    """Whether a loop's iteration samples SteerLM, which takes conditions instead of directions."""
    return wildcards.loop == "dpa" and wildcards.iteration == "1"


def sampled_stage(wildcards):
    """Whose policy an iteration samples: that of the one before, or where the loop starts."""
    before = int(wildcards.iteration) - 1
    if before < 0:
        raise ValueError("iteration 0 is where a loop starts: nothing is sampled for it")
    if before or wildcards.loop == "dpa":
        return f"{wildcards.loop}/iter{before}"
    if wildcards.loop == "directional_dpo" and cfg.directional_dpo.start == "dpa":
        return "dpa/iter1"
    return "sft"


def sampled_policy(wildcards):
    """The sampled policy as a rule's input."""
    stage = sampled_stage(wildcards)
    if stage == "sft" and cfg.sft.path:
        return []
    return f"results/{wildcards.experiment}/{stage}/policy"


# Functions for params take wildcards only: Snakemake does not notice a change of configuration in
# params that depend on input or output.


def sampled_policy_flags(wildcards):
    if sampled_stage(wildcards) == "sft":
        return [part.format(experiment=wildcards.experiment) for part in sft_flags("--policy")]
    return ["--policy", sampled_policy(wildcards)]


def iteration_conditions(wildcards):
    if not samples_steerlm(wildcards):
        return []
    return f"results/{wildcards.experiment}/steerlm/conditions.json"


def condition_flags(wildcards):
    if not samples_steerlm(wildcards):
        return []
    steerlm = cfg.steerlm
    return [
        "--conditions", iteration_conditions(wildcards),
        "--noise", str(steerlm.noise),
        "--uniform-share", str(steerlm.uniform_share),
    ]  # fmt: skip


def shard_files(pattern):
    """An input function: all shards of a pattern with {experiment} and perhaps {iteration}."""
    return [pattern.replace("{shard}", str(shard)) for shard in SHARDS]


def policies():
    """Names of the evaluated policies: those of the methods' iterations, or of the methods."""
    iterations = {
        "dpa": ITERATIONS,
        "directional_dpo": range(1, cfg.directional_dpo.iterations + 1),
    }
    return [
        name
        for method in cfg.methods
        for name in ([f"{method}-{t}" for t in iterations.get(method, ())] or [method])
    ]


def is_given(policy):
    """Whether a policy is a published one, given by config."""
    return policy in ("sft", "dpo") and getattr(cfg, policy).path is not None


def policy_stage(policy):
    """The folder, within a run, of an evaluated policy."""
    method, _, iteration = policy.partition("-")
    scalar = direction_name(cfg.scalar_direction)
    stages = {"rsf": f"rsf/{scalar}/iter{cfg.rsf.iterations}", "ppo": f"ppo/{scalar}"}
    return f"{method}/iter{iteration}" if iteration else stages.get(method, method)


def evaluated_policy(wildcards):
    """The folder of an evaluated policy, as a rule's input."""
    if is_given(wildcards.policy):
        return []
    return f"results/{wildcards.experiment}/{policy_stage(wildcards.policy)}/policy"


def soup_stages():
    """The folders, within a run, of Reward Soup's experts, in the order of objectives."""
    names = [direction_name(v) for v in single_objectives(LAW)]
    if cfg.reward_soup.experts == "ppo":
        return [f"ppo/{name}" for name in names]
    return [f"rsf/{name}/iter{cfg.reward_soup.iterations}" for name in names]


def soup_experts(wildcards):
    return [f"results/{wildcards.experiment}/{stage}/policy" for stage in soup_stages()]


def method_parts():
    """For each method the folders, within a run, whose cost is the method's: none for a given one."""
    scalar = direction_name(cfg.scalar_direction)

    def loop(name, iterations):
        return [f"{name}/iter{t}" for t in range(1, iterations + 1)]

    soup = [
        stage
        for expert in soup_stages()
        for stage in (
            [expert]
            if cfg.reward_soup.experts == "ppo"
            else loop(expert.rpartition("/")[0], cfg.reward_soup.iterations)
        )
    ]
    first = ["dpa/iter0", "dpa/iter1"] if cfg.directional_dpo.start == "dpa" else []
    parts = {
        "dpa": ["dpa/iter0", *loop("dpa", cfg.dpa.iterations)],
        "rsf": loop(f"rsf/{scalar}", cfg.rsf.iterations),
        "ppo": [f"ppo/{scalar}"],
        "reward_soup": soup,
        "directional_dpo": first + loop("directional_dpo", cfg.directional_dpo.iterations),
    }
    return {m: [] if is_given(m) else parts.get(m, [m]) for m in cfg.methods}


def trained_stages():
    """All folders, within a run, that the methods train, each once."""
    return list(dict.fromkeys(stage for stages in method_parts().values() for stage in stages))


def check_again():
    """Before the first job of a later run, what preflight checks and does not need a GPU for."""
    waiting = [job for job in workflow.dag.needrun_jobs() if PREFLIGHT_REPORT in job.input]
    if not waiting or any(job.rule.name == "preflight" for job in workflow.dag.needrun_jobs()):
        return
    found = check_all(cfg, RESULTS, trained_stages(), policies(), with_gpus=False)
    if found.failures:
        sys.exit(f"error: {found.report()}")


# For preflight's job; in the environment, because a param that changes would make it run again.
os.environ[PREFLIGHT_VARIABLE] = preflight_input(cfg, RESULTS, trained_stages(), policies())


def evaluated_conditions(wildcards):
    """SteerLM policies are evaluated on conditions instead of directions."""
    if wildcards.policy not in ("dpa-0", "steerlm"):
        return []
    return f"results/{wildcards.experiment}/steerlm/conditions.json"


def steering_flags(wildcards, grid):
    """The policy, and how it is steered: by the grid's directions where it takes any."""
    if is_given(wildcards.policy):
        given = getattr(cfg, wildcards.policy)
        flags = ["--policy", given.path]
        flags += ["--policy-revision", given.revision] if given.revision else []
    else:
        flags = ["--policy", evaluated_policy(wildcards)]
    if conditions := evaluated_conditions(wildcards):
        flags += ["--conditions", conditions]
    elif "-" in wildcards.policy:
        flags += ["--directions", json.dumps(LAW)]
        flags += ["--grid", json.dumps(grid)]
    return flags


def evaluation_flags(wildcards):
    return steering_flags(wildcards, cfg.evaluation.directions)


def benchmark_flags(wildcards):
    return steering_flags(wildcards, getattr(cfg, wildcards.benchmark).directions)


def benchmark_sampling(wildcards):
    temperature = getattr(cfg, wildcards.benchmark).temperature
    return as_json(cfg.sampling.model_copy(update={"temperature": temperature}))


def last_policies(methods):
    """The last policy of each of the methods that the experiment has."""
    last = {}
    for name in policies():
        last[name.partition("-")[0]] = name
    return [last[method] for method in methods if method in last]


def alpacaeval_policies():
    return last_policies(cfg.alpacaeval.methods)


def rewardbench_policies():
    """The policies that are compared with the reference, and the reference; or none."""
    compared = last_policies(m for m in cfg.rewardbench.methods if m != cfg.rewardbench.reference)
    reference = last_policies([cfg.rewardbench.reference])
    return (compared, reference[0]) if compared and reference else ([], None)


def rewardbench_judged():
    compared, reference = rewardbench_policies()
    return [*compared, reference] if compared else []


def rewardbench_tables():
    """Without a policy and a reference there is only the reward model's accuracy."""
    tables = ["reward_model_accuracy"] + (["win_rates"] if rewardbench_judged() else [])
    return [f"results/{cfg.experiment}/rewardbench/{table}.csv" for table in tables]


def rewardbench_table_flags():
    compared, reference = rewardbench_policies()
    accuracy, *win_rates = rewardbench_tables()
    flags = ["--accuracy", accuracy]
    if win_rates:
        flags += ["--win-rates", *win_rates, "--policies", ",".join(compared)]
        flags += ["--reference", reference]
    return flags


def rewardbench_judge_flags():
    judge = cfg.rewardbench.judge
    if judge.gold:
        return ["--gold", judge.gold]
    return ["--judge", judge.path] + (["--revision", judge.revision] if judge.revision else [])


def reward_model_targets():
    return expand("{run}/reward_model/{table}.csv", run=RUNS, table=["metrics", "ranking"])


def dpa_targets():
    iterations = ITERATIONS if cfg.data.train_prompts else []
    return expand("{run}/dpa/iter{t}/policy", run=RUNS, t=iterations)


def alpacaeval_targets():
    """Without prompts to train on there is no policy to judge."""
    if cfg.alpacaeval is None or not cfg.data.train_prompts or not alpacaeval_policies():
        return []
    return [f"results/{cfg.experiment}/alpacaeval/results.csv"]


def rewardbench_targets():
    return rewardbench_tables() if cfg.rewardbench and cfg.data.train_prompts else []


def baseline_targets():
    names = [name for name in policies() if not name.startswith("dpa-")]
    names = names if cfg.data.train_prompts else []
    return expand("{run}/evaluation/scored/{name}.jsonl", run=RUNS, name=names)


def policy_gradient_directions():
    """Names of the directions that a policy gradient optimises."""
    names = [direction_name(cfg.scalar_direction)] if "ppo" in cfg.methods else []
    if "reward_soup" in cfg.methods and cfg.reward_soup.experts == "ppo":
        names += [direction_name(v) for v in single_objectives(LAW)]
    return list(dict.fromkeys(names))


def policy_gradient_histories():
    names = policy_gradient_directions()
    return expand("{run}/ppo/{name}/history.csv", run=RUNS, name=names)


def has_dpa():
    """Whether there is a DPA to compare with; an experiment with ratings only has no policies."""
    return bool(cfg.data.train_prompts) and "dpa" in cfg.methods


def has_win_rates():
    """Whether RewardBench compares a policy with a reference: table 2."""
    return any(Path(table).name == "win_rates.csv" for table in rewardbench_targets())


def figure_names():
    names = ["figure1", "figure4"] if has_dpa() else []
    names += ["figure5"] if alpacaeval_targets() else []
    names += ["response_length", "reward_against_length"] if has_dpa() else []
    names += ["policy_gradient"] if policy_gradient_directions() and cfg.data.train_prompts else []
    names += ["costs"] if cfg.data.train_prompts else []
    return [*names, "reward_model"]


def table_names():
    names = ["figure1", "table1", "comparison"] if has_dpa() else []
    names += ["table2", "rewardbench_reward_model"] if has_win_rates() else []
    names += ["costs"] if cfg.data.train_prompts else []
    return [*names, "reward_model"]


def figure_targets():
    return expand(
        "results/{experiment}/figures/{figure}.{kind}",
        experiment=cfg.experiment,
        figure=figure_names(),
        kind=["pdf", "svg", "png"],
    )


def table_targets():
    return expand(
        "results/{experiment}/tables/{table}.{kind}",
        experiment=cfg.experiment,
        table=table_names(),
        kind=["csv", "md", "tex"],
    )


def report_targets():
    return [f"results/{cfg.experiment}/report.html"]


def provenance_targets():
    return [f"results/{cfg.experiment}/provenance.json"]


def start_message():
    seeds = ", ".join(map(str, cfg.seeds))
    print(f"dpa: experiment {cfg.experiment}, seed {seeds}, outputs in results/{cfg.experiment}/")


def success_message():
    figure = Path(f"results/{cfg.experiment}/figures/figure4.png")
    grid = evaluation_directions(LAW, cfg.evaluation.directions)
    direction = ",".join(f"{v:g}" for v in grid[len(grid) // 2])
    if figure.exists():
        print(
            f"dpa: done. {figure} shows helpfulness against verbosity on held-out prompts:\n"
            f"     a curve per iteration t = 0..{cfg.dpa.iterations} of DPA, further up and left is "
            "better; the numbers are in\n"
            f"     results/{cfg.experiment}/evaluation/validation_rewards.csv. Try the policy:\n"
            f"     uv run python -m scripts.chat --policy {RUNS[0]}/dpa/"
            f"iter{cfg.dpa.iterations}/policy --direction {direction}"
        )
    metrics = Path(reward_model_targets()[0])
    if metrics.exists():
        print(f"     Quality of the reward model: {metrics}")
    page = Path(report_targets()[0])
    if page.exists():
        print(f"     Everything on one page, to be opened in a browser: {page}")
