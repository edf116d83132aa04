# Everything in the rules that is not a rule, and needs Snakemake; the rest is in dpa/workflow.

import json
import os
import sys
from pathlib import Path

from snakemake.logging import logger

# The clone: code, config.yaml, experiments, the paper's numbers. The working directory, which may be
# another folder (--directory, or a workflow that imports this one as a module), holds the rest.
CLONE = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(CLONE))

from dpa.config.load import config_hash, hub_repositories, load_config, result_settings
from dpa.config.revisions import LOCK_FILE
from dpa.directions import grid_size
from dpa.errors import InputError
from dpa.runtime.run_environment import RunEnvironment
from dpa.workflow import flags, hooks
from dpa.workflow.adapters import Adapters
from dpa.workflow.flags import input_flags, repeat, section
from dpa.workflow.jobs import CRITICAL, Jobs
from dpa.workflow.layout import DIRECTION_PATTERN, LATER_MEMBER, LOOP_PATTERN, MEMBER_PATTERN
from dpa.workflow.layout import Layout, files_of, loops_trained_by, shard_files
from dpa.workflow.stamps import Stamps, relative_to_here

if workflow.overwrite_configfiles and "experiment" not in config:
    given = workflow.overwrite_configfiles[-1]
    sys.exit(
        f"error: --configfile {given} names no experiment, and would change the quickstart's: "
        f"run an experiment's file by --config experiment={given}"
    )

deployed_by = set(map(str, workflow.deployment_settings.deployment_method))
if "conda" in deployed_by:
    sys.exit(
        "error: --sdm conda has nothing to make: no rule names a conda environment. Install "
        "requirements.lock into the one that is active, or use --sdm apptainer (docs/cluster.md)"
    )
if "apptainer" in deployed_by and not (CLONE / "envs/dpa.sif").is_file():
    sys.exit(
        f"error: {CLONE / 'envs/dpa.sif'}: no such image for --sdm apptainer; build it in the clone: "
        "apptainer build --build-arg LOCK=envs/vllm.lock envs/dpa.sif envs/dpa.def (docs/cluster.md)"
    )

# Without a configfile: directive, config holds what the command line says and nothing else.
try:
    cfg = load_config(config)
except InputError as error:
    sys.exit(f"error: {error}")

layout = Layout(cfg)
jobs = Jobs(cfg, workflow.resource_settings.default_resources or {})
stamps = Stamps(writing=workflow.is_main_process)
of = Adapters(layout, stamps)
RunEnvironment(
    config_hash=config_hash(cfg),
    base_seed=str(cfg.seed),
    commits={str(f.path): f.revision for _, f in hub_repositories(cfg) if f.revision},
    **cfg.limits.model_dump(),
    trust_remote_code=tuple(cfg.trust_remote_code),
    hang_minutes=cfg.compute.hang_minutes,
    gpu=cfg.compute.gpu,
    report_to=tuple(cfg.trainer.report_to),
).announce()

RUNS, RESULTS = layout.runs, layout.results
# {experiment} is the experiment's name; with several seeds that and /seed<n>, except for what is
# made from all seeds together.
ONE_SEED = "|".join(layout.seed_of)
ANY_RUN = "|".join(dict.fromkeys([*layout.seed_of, cfg.experiment]))
OBJECTIVE_NAMES = ",".join(objective.name for objective in cfg.objectives)
REFERENCE = ",".join(map(str, cfg.evaluation.hypervolume_reference))

#: Proof of a passed preflight, for all seeds.
PREFLIGHT = ancient(f"{RESULTS}/preflight.json")


def code(script, *others):
    """The stamp of what a script's result is computed by; `others` are further files of the clone."""
    stamp = stamps.code(script, others)
    return stamp if cfg.rerun_on_code_change else ancient(stamp)


def figure_files(name):
    """A figure's files; `snakemake --report` shows one, over the figure's own caption."""
    kinds = cfg.figures.style.formats
    shown = "svg" if "svg" in kinds else kinds[0]
    labels = {"figure": name.replace("_", " ")}
    files = {kind: f"{RESULTS}/figures/{name}.{kind}" for kind in [*kinds, "csv", "md"]}
    caption = os.path.abspath(files["md"])
    files[shown] = report(files[shown], caption=caption, category="Figures", labels=labels)
    return list(files.values())


def clone(path):
    """A file of the clone as an input."""
    return relative_to_here(CLONE / path)


def until_saved(command):
    """A training's shell command, with its log.

    Schedulers send SIGTERM to every process of a job. The training ends with a checkpoint then
    (docs/training.md); until it has, the shell has to stay, for the job ends with it.
    """
    return f"trap : TERM; {command} > {{log}} 2>&1"


def say(message):
    """To whoever watches the run: --logger dpa tells our messages from Snakemake's."""
    logger.info(message, extra={"dpa": True})


def folder_of(wildcards, output):
    return os.path.dirname(output[0])


def check_before_jobs():
    """Before the first job of a run: commits are fixed; and of a later run what preflight checks and
    needs no GPU for."""
    from dpa.plan.preflight import check_all

    waiting = workflow.dag.needrun_jobs()
    rules = {job.rule.name for job in waiting}
    name = config.get("experiment", cfg.experiment)
    # Not when the DAG is built: a dry run needs no commits.
    if rules != {"lock_revisions"} and (message := hooks.floating_message(layout, name)):
        sys.exit(f"error: {message}")
    if message := hooks.other_seed_message(layout):
        sys.exit(f"error: {message}")
    if "preflight" not in rules and any(PREFLIGHT in job.input for job in waiting):
        stages, policies = layout.trained_stages(), layout.policies()
        found = check_all(cfg, RESULTS, stages, policies, with_gpus=False)
        if found.failures:
            sys.exit(f"error: {found.report()}")
