"""What a change of DPA is worth over seeds: variants of the quickstart, each from the plain run.

    python -m benchmarks.compare_variants run plain feedback feedback-all --seeds 11,12,13 \
        --runs results/variants
    python -m benchmarks.compare_variants table --runs results/variants

A run is a folder `<runs>/<seed>/<variant>`, a working directory of Snakemake's. A variant starts
as a copy of another one's folder (of `plain`, or of the variant that it extends), in which
Snakemake remakes what the variant changes, and nothing else. Seeds run beside each other, each on
one core. What is complete is not done again, and a run that was killed resumes.

`table` prints means over seeds with standard errors, and gains over `plain` on the same seeds: mean
v·r over the evaluated directions on the validation prompts by iteration, by the first reward model
and by gold, hypervolumes of the last iteration, labels, and minutes of one core beyond the folder
that the variant started from. `runs.csv` beside the runs has every seed.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import typer

from benchmarks.harness import nested
from dpa.artefacts.outputs import replace_text
from dpa.config.load import load_config
from dpa.directions import evaluation_directions
from dpa.errors import InputError
from dpa.evaluation.validation import (
    front,
    front_hypervolume,
    mean_scalar_reward,
    read_validation_rewards,
)
from dpa.runtime.cli import make_app, run_app
from dpa.runtime.run_environment import CLONE

EXPERIMENT = "quickstart"
#: What every variant has: no other methods, and one thread for each job.
COMMON = {"methods": ["sft", "dpa"], "reward_model.threads": 1}


class Variant(NamedTuple):
    """What a variant changes, and the variant whose folder it starts from."""

    overrides: dict[str, Any]
    start: str | None = "plain"
    #: The workflow, where the difference is no key's.
    snakefile: str = "Snakefile"


GOLD = {"feedback.annotator": {"kind": "gold"}}
GOLD_16 = {**GOLD, "feedback.best_per_prompt": 8, "feedback.random_per_prompt": 8}
THREE = {"reward_model.members": 3}
VARIANTS = {
    "plain": Variant({}, None),
    "replay-plain": Variant({"dpa.replay_prompt": "plain"}),
    "no-replay": Variant({"dpa.replay_fraction": 0.0}),
    "distinct": Variant({"dpa.distinct_answers": True}),
    "feedback": Variant(GOLD),
    "feedback-all": Variant({**GOLD, "dpa.candidates": "all"}, "feedback"),
    "feedback-16": Variant(GOLD_16),
    "feedback-16-all": Variant({**GOLD_16, "dpa.candidates": "all"}, "feedback-16"),
    "feedback-16-previous": Variant({**GOLD_16, "feedback.start": "previous"}, "feedback-16"),
    "feedback-16-rescored": Variant(GOLD_16, "feedback-16", "benchmarks/rescoring.smk"),
    "min": Variant({**THREE, "dpa.pessimism": "min"}),
    "penalty-0.5": Variant({**THREE, "dpa.pessimism": {"penalty": 0.5}}, "min"),
    "penalty-1": Variant({**THREE, "dpa.pessimism": {"penalty": 1.0}}, "min"),
    "penalty-2": Variant({**THREE, "dpa.pessimism": {"penalty": 2.0}}, "min"),
    "warm": Variant({**THREE, "reward_model.average": True}),
    "feedback-min": Variant({**GOLD, **THREE, "dpa.pessimism": "min"}, "min"),
    "feedback-16-min": Variant({**GOLD_16, **THREE, "dpa.pessimism": "min"}, "min"),
    "all": Variant({"dpa.candidates": "all"}),
}

app = make_app()
stopping = threading.Event()


@app.command()
def run(
    variants: Annotated[list[str], typer.Argument(help=f"Of {', '.join(VARIANTS)}.")],
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")],
    seeds: Annotated[str, typer.Option(help="Base seeds, comma-separated.")],
    cores: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    override: Annotated[
        str, typer.Option(help="Keys of all variants, as JSON: other sizes.")
    ] = "{}",
) -> None:
    """Run variants on seeds; what they start from comes first."""
    common = json.loads(override)
    for key, value in COMMON.items():
        common = nested(common, key, value)
    chain = list(dict.fromkeys(name for last in variants for name in chain_of(last)))
    # Seed by seed within a variant: when time runs out, variants were run on the same seeds.
    with ThreadPoolExecutor(cores) as pool:
        pairs = [(int(seed), name) for name in chain for seed in seeds.split(",")]
        ready = {pair: threading.Event() for pair in pairs}

        def one(seed: int, name: str) -> None:
            start = VARIANTS[name].start
            if start:
                ready[seed, start].wait()
            try:
                if not stopping.is_set():
                    make(runs / str(seed), name, seed, common)
            except BaseException:
                stopping.set()
                raise
            finally:
                ready[seed, name].set()

        for future in [pool.submit(one, *pair) for pair in pairs]:
            future.result()


def chain_of(name: str) -> list[str]:
    """A variant after those that it starts from."""
    if name not in VARIANTS:
        raise InputError(f"{name}: no such variant; there are {', '.join(VARIANTS)}")
    start = VARIANTS[name].start
    return [*(chain_of(start) if start else []), name]


def make(runs: Path, name: str, seed: int, common: dict[str, Any]) -> None:
    """Run one variant on one seed, unless that is done."""
    folder, start_from = runs / name, VARIANTS[name].start
    done = folder / "done.json"
    if done.exists():
        return
    if not folder.exists():
        # A copy that was cut short is no start: it gets its name when it is whole.
        partial = runs / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        if start_from:
            shutil.copytree(runs / start_from, partial, symlinks=True)
            (partial / "done.json").unlink()
        partial.mkdir(parents=True, exist_ok=True)
        (partial / "started").touch()
        partial.rename(folder)
    # Jobs say `python -m scripts.…`, from the run's folder.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(CLONE)}
    start = time.monotonic()
    with (folder / "snakemake.log").open("a") as log:
        for options in (["--unlock"], ["--cores", "1", "--rerun-incomplete", *lost(folder)]):
            code = subprocess.call(
                [sys.executable, "-m", "snakemake", *arguments(folder, seed, common, options)],
                cwd=CLONE, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            if code and "--unlock" not in options:
                raise InputError(f"{folder}: Snakemake failed; its output is in snakemake.log")
    values = measured(folder, seed, overlay_of(name, seed, common))
    replace_text(done, json.dumps(values, indent=1) + "\n")
    print(
        f"{time.strftime('%H:%M')} {name}, seed {seed}: {time.monotonic() - start:.0f} s",
        flush=True,
    )


def overlay_of(name: str, seed: int, common: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a variant's run, laid over the experiment."""
    overlay = common | {"seed": [seed]}
    for key, value in VARIANTS[name].overrides.items():
        overlay = nested(overlay, key, value)
    return overlay


def arguments(folder: Path, seed: int, common: dict[str, Any], options: Sequence[str]) -> list[str]:
    """What Snakemake is given to make a run in its folder, which has the variant's name."""
    overlay = overlay_of(folder.name, seed, common)
    keys = [f"experiment={EXPERIMENT}", *(f"{k}={json.dumps(v)}" for k, v in overlay.items())]
    result = f"results/{EXPERIMENT}/seed{seed}/evaluation/validation_rewards.csv"
    return [
        "--snakefile", str(CLONE / VARIANTS[folder.name].snakefile),
        "--directory", str(folder.resolve()), *options,
        "--config", *keys, "--", result,
    ]  # fmt: skip


def lost(folder: Path) -> list[str]:
    """Flags that have what a stopped job had removed made again.

    Snakemake removes a job's old outputs before it starts. Where the job is then stopped, and what
    depends on them is there from the run that was copied, it takes that for up to date.
    """
    sidecars = (folder / "results").rglob("*.meta.json")
    artefacts = (path.with_name(path.name.removesuffix(".meta.json")) for path in sidecars)
    missing = [str(path.relative_to(folder)) for path in artefacts if not path.exists()]
    return ["--forcerun", *missing] if missing else []


def measured(folder: Path, seed: int, overlay: dict[str, Any]) -> dict[str, float]:
    """A finished run's numbers."""
    config = load_config({"experiment": EXPERIMENT, **overlay})
    results = folder / f"results/{EXPERIMENT}/seed{seed}"
    rewards = read_validation_rewards(results / "evaluation/validation_rewards.csv")
    directions = evaluation_directions(config.directions.model_dump(), config.evaluation.directions)
    names = [objective.name for objective in config.objectives]
    reference = config.evaluation.hypervolume_reference
    values: dict[str, float] = {}
    for by in ("r", "gold"):
        for t in range(1, config.dpa.iterations + 1):
            points = front(rewards, "dpa", t, names, by)
            values[f"{by} t={t}"] = mean_scalar_reward(points, directions, steered=True)
        values[f"{by} hypervolume"] = front_hypervolume(points, reference)
    labels = (results / "feedback").glob("iter*/ratings.jsonl.meta.json")
    values["labels"] = sum(json.loads(sidecar.read_bytes())["rated"] for sidecar in labels)
    started = (folder / "started").stat().st_mtime
    jobs = [path for path in results.rglob("benchmarks/**/*.tsv") if path.stat().st_mtime > started]
    values["minutes"] = sum(pd.read_csv(path, sep="\t")["cpu_time"].sum() for path in jobs) / 60
    return values


@app.command()
def table(
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")],
) -> None:
    """Print the finished runs' means over seeds, and gains over `plain` on the same seeds."""
    done = sorted(runs.glob("*/*/done.json"))
    if not done:
        raise InputError(f"{runs}: has no finished run")
    numbers = pd.DataFrame(
        {"variant": p.parent.name, "seed": int(p.parent.parent.name), **json.loads(p.read_bytes())}
        for p in done
    )
    replace_text(runs / "runs.csv", numbers.to_csv(index=False, float_format="%.4f"))
    print(markdown_table(numbers))


def markdown_table(runs: pd.DataFrame) -> str:
    """One row for each variant."""
    numbers = [column for column in runs.columns if column not in ("variant", "seed")]
    last = max(column for column in numbers if column.startswith("gold t="))
    gains = [last, "gold hypervolume"]
    header = ["variant", "seeds", *numbers, *(f"{name}, gain" for name in gains), "gains"]
    plain = runs[runs["variant"] == "plain"].set_index("seed")
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for variant in VARIANTS:
        mine = runs[runs["variant"] == variant].set_index("seed")
        if mine.empty:
            continue
        gain = mine[gains] - plain[gains]
        gain = gain.dropna()
        cells = [variant, str(len(mine)), *(mean_with_error(mine[name]) for name in numbers)]
        if variant == "plain":
            cells += ["", "", ""]
        else:
            cells += [mean_with_error(gain[name]) for name in gains]
            cells += [f"{(gain[last] > 0).sum()} of {len(gain)}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_with_error(values: Sequence[float] | pd.Series) -> str:
    """Mean and standard error; the value alone where there is one, or where all are equal."""
    series = pd.Series(values)
    if len(series) < 2 or series.nunique() == 1:
        return f"{series.mean():.1f}" if len(series) else ""
    return f"{series.mean():.1f} ± {series.sem():.1f}"


if __name__ == "__main__":
    run_app(app)
