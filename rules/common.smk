# Everything in the rules that is not a rule: the configuration, and functions of wildcards.

import ast
import json
import os
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir)))

from dpa.config import config_hash, load_config
from dpa.errors import InputError
from dpa.provenance import announce_run

# Without a configfile: directive, config holds what the command line says and nothing else.
try:
    cfg = load_config(config)
except InputError as error:
    sys.exit(f"error: {error}")

announce_run(config_hash(cfg), cfg.seed)

SHARDS = range(cfg.shards)
ITERATIONS = range(cfg.dpa.iterations + 1)
OBJECTIVES = ",".join(objective.name for objective in cfg.objectives)
REWARDS = f"results/{cfg.experiment}/evaluation/validation_rewards.csv"


def as_json(section):
    """A section of the configuration as the one-line JSON that scripts take."""
    if isinstance(section, list):
        return json.dumps([item.model_dump(mode="json", by_alias=True) for item in section])
    return json.dumps(section.model_dump(mode="json", by_alias=True))


@cache
def code(script):
    """A script and the library modules that it imports, directly or not.

    Listed as inputs, because Snakemake reruns a shell rule only when its command changes.
    """
    root = Path(workflow.basedir)
    found, queue = set(), [root / "scripts" / f"{script}.py"]
    while queue:
        path = queue.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dpa"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                stems = [root.joinpath(*name.split(".")) for name in names]
                files = [s.with_suffix(".py") for s in stems] + [s / "__init__.py" for s in stems]
                queue.extend(file for file in files if file.exists())
    return sorted(os.path.relpath(path, root) for path in found)


def local_sources(sources):
    """The sources that are files or folders here (hub data sets are not inputs of a rule)."""
    return [source.path for source in sources if source.revision is None]


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
    flags = [flag, section.path or made.format(experiment=cfg.experiment)]
    return flags + ([revision, section.revision] if section.revision else [])


def base_model_flags(flag="--base-model"):
    return model_flags(flag, cfg.base_model, "results/{experiment}/base_model")


def sft_flags(flag="--sft-policy"):
    return model_flags(flag, cfg.sft, "results/{experiment}/sft/policy")


def reward_model_flags(revision="--revision"):
    made = "results/{experiment}/reward_model/model"
    return model_flags("--reward-model", cfg.reward_model, made, revision)


def prompt_half(wildcards):
    """The prompts of an iteration: D1 for odd ones, D2 for even ones (paper, section 3.1)."""
    half = "d1" if int(wildcards.iteration) % 2 else "d2"
    return f"results/{wildcards.experiment}/data/prompts/{half}.jsonl"


def previous_policy(wildcards):
    """Iteration t samples from the policy of t-1."""
    before = int(wildcards.iteration) - 1
    if before < 0:
        raise ValueError("iteration 0 is SteerLM: nothing is sampled for it")
    return f"results/{wildcards.experiment}/dpa/iter{before}/policy"


def iteration_conditions(wildcards):
    """Iteration 1 samples from SteerLM, which takes conditions instead of directions."""
    if wildcards.iteration != "1":
        return []
    return f"results/{wildcards.experiment}/steerlm/conditions.json"


def condition_flags(wildcards, input):
    if not input.conditions:
        return []
    steerlm = cfg.steerlm
    return [
        "--conditions", input.conditions,
        "--noise", str(steerlm.noise),
        "--uniform-share", str(steerlm.uniform_share),
    ]  # fmt: skip


def shard_files(pattern):
    """An input function: all shards of a pattern with {experiment} and perhaps {iteration}."""
    return [pattern.replace("{shard}", str(shard)) for shard in SHARDS]


def policies():
    """Names of the evaluated policies: dpa-0 .. dpa-T and the baselines."""
    return [f"dpa-{t}" for t in ITERATIONS] + list(cfg.baselines)


def is_given(policy):
    """Whether a policy is a published one, given by config."""
    return policy in ("sft", "dpo") and getattr(cfg, policy).path is not None


def evaluated_policy(wildcards):
    """The folder of an evaluated policy, as a rule's input."""
    if is_given(wildcards.policy):
        return []
    method, _, iteration = wildcards.policy.partition("-")
    stage = f"dpa/iter{iteration}" if method == "dpa" else method
    return f"results/{wildcards.experiment}/{stage}/policy"


def evaluated_conditions(wildcards):
    """SteerLM policies are evaluated on conditions instead of directions."""
    if wildcards.policy not in ("dpa-0", "steerlm"):
        return []
    return f"results/{wildcards.experiment}/steerlm/conditions.json"


def evaluation_flags(wildcards, input):
    """The policy, and how it is steered."""
    if is_given(wildcards.policy):
        given = getattr(cfg, wildcards.policy)
        flags = ["--policy", given.path]
        flags += ["--policy-revision", given.revision] if given.revision else []
    else:
        flags = ["--policy", str(input.policy)]
    if input.conditions:
        flags += ["--conditions", str(input.conditions)]
    elif wildcards.policy.startswith("dpa-"):
        flags += ["--directions", as_json(cfg.directions)]
        flags += ["--direction-count", str(cfg.evaluation.directions)]
    return flags


def reward_model_targets():
    return [
        f"results/{cfg.experiment}/reward_model/metrics.csv",
        f"results/{cfg.experiment}/reward_model/ranking.csv",
    ]


def dpa_targets():
    return [
        f"results/{cfg.experiment}/dpa/iter{t}/policy"
        for t in (ITERATIONS if cfg.data.train_prompts else [])
    ]


def baseline_targets():
    return [
        f"results/{cfg.experiment}/evaluation/scored/{method}.jsonl"
        for method in (cfg.baselines if cfg.data.train_prompts else [])
    ]


def figure_targets():
    """Figures need prompts; an experiment with ratings only has none."""
    if not cfg.data.train_prompts:
        return []
    return [f"results/{cfg.experiment}/figures/figure4.{kind}" for kind in ("pdf", "svg", "png")]


def start_message():
    print(
        f"dpa: experiment {cfg.experiment}, seed {cfg.seed}, outputs in results/{cfg.experiment}/"
    )


def success_message():
    figure = Path(f"results/{cfg.experiment}/figures/figure4.png")
    if figure.exists():
        print(
            f"dpa: done. {figure} shows helpfulness against verbosity on held-out prompts:\n"
            f"     a curve per iteration t = 0..{cfg.dpa.iterations} of DPA, further up and left is "
            "better; the numbers are in\n"
            f"     {REWARDS}. Try the policy:\n"
            f"     uv run python -m scripts.chat --policy results/{cfg.experiment}/dpa/"
            f"iter{cfg.dpa.iterations}/policy --direction 0.8,-0.6"
        )
    metrics = Path(reward_model_targets()[0])
    if metrics.exists():
        print(f"     Quality of the reward model: {metrics}")
