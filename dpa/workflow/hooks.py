"""What a run says and checks before its first job and after its last."""

import json
from pathlib import Path

from dpa.config.base import is_commit
from dpa.config.load import floating, hub_repositories
from dpa.directions import evaluation_directions
from dpa.workflow.layout import Layout


def unlocked_flags(layout: Layout) -> list[str]:
    """The hub repositories that have no commit yet, as the flags of lock_revisions."""
    return [
        part
        for _, found in hub_repositories(layout.config)
        if found.revision and not is_commit(found.revision)
        for part in (f"--hub-{found.kind}", str(found.path))
    ]


def floating_message(layout: Layout, experiment: str) -> str | None:
    """Why a run may not start whose commits are not fixed, and what to do; None where they are."""
    if not (problems := floating(layout.config)):
        return None
    return (
        f"revisions that are not fixed ({problems}); run `snakemake --cores 1 lock_revisions "
        f"--config experiment={experiment}`, give the commits, or set allow_floating"
    )


def other_seed_message(layout: Layout) -> str | None:
    """Why a run with one seed may not start in a folder that another seed's run has filled."""
    seed = layout.config.seed
    if not isinstance(seed, int):  # each has a folder of its own
        return None
    for sidecar in sorted(Path(f"{layout.results}/data").glob("*.meta.json")):
        try:
            found = str(json.loads(sidecar.read_text())["base_seed"])
        except (ValueError, KeyError, TypeError):  # damaged: not what this is about
            continue
        if found.isdigit() and found != str(seed):
            return (
                f"{layout.results}/ holds a run with seed {found}, and this one has {seed}: run "
                f"both by --config 'seed=[{found}, {seed}]', each in a folder of its own, or name "
                "another experiment"
            )
    return None


def stopped_rerun_message(layout: Layout) -> str | None:
    """What to have made again where a rerun may have been stopped; None where nothing is gone.

    Snakemake removes an output when it makes it anew, and forgets why; what was made from the old
    one passes for finished if the new one never came. Then its sidecar is there and it is not, as
    where somebody has deleted it to save space: that may stay so.
    """
    sidecars = sorted(Path(layout.results).rglob("*.meta.json"))
    found = {str(path).removesuffix(".meta.json"): path for path in sidecars}
    gone = {artefact for artefact in found if not Path(artefact).exists()}
    needed: dict[str, str] = {}
    for artefact in found if gone else ():
        try:
            inputs = json.loads(found[artefact].read_text())["inputs"]
        except (OSError, ValueError, KeyError, TypeError):  # damaged: not what this is about
            continue
        needed |= {name: artefact for name in inputs if name in gone and artefact not in gone}
    if not needed:
        return None
    first, made = next(iter(sorted(needed.items())))
    more = f", and {len(needed) - 1} more" if len(needed) > 1 else ""
    return (
        f"dpa: {first} is not there, but its sidecar is, and {made}, which was made from it{more}. "
        "If a rerun was stopped, and this run does not make it, have it made with what follows: "
        f"--forcerun {' '.join(sorted(needed))}"
    )


def start_message(layout: Layout) -> str:
    config = layout.config
    seeds = ", ".join(map(str, config.seeds))
    return f"dpa: experiment {config.experiment}, seed {seeds}, outputs in {layout.results}/"


def success_message(layout: Layout) -> str:
    """Where to look, and how to talk to the policy; about what is there."""
    config, results = layout.config, layout.results
    lines = []
    figure = Path(f"{results}/figures/figure4.png")
    if figure.exists():
        grid = evaluation_directions(layout.distribution, config.evaluation.directions)
        direction = ",".join(f"{v:g}" for v in grid[len(grid) // 2])
        stage = "dpa/chosen" if layout.chooses else f"dpa/iter{config.dpa.iterations}"
        lines += [
            f"dpa: done. {figure} shows helpfulness against verbosity on held-out prompts:",
            f"     a curve per iteration t = 0..{config.dpa.iterations} of DPA, further up and "
            "left is better; the numbers are in",
            f"     {results}/evaluation/validation_rewards.csv. Try the policy:",
            f"     uv run python -m scripts.chat --policy {layout.runs[0]}/{stage}/policy"
            f" --direction {direction}",
        ]
    metrics = Path(layout.targets("reward_model")[0])
    if metrics.exists():
        lines.append(f"     Quality of the reward model: {metrics}")
    page = Path(layout.targets("report")[0])
    if page.exists():
        lines.append(f"     Everything on one page, to be opened in a browser: {page}")
    return "\n".join(lines)
