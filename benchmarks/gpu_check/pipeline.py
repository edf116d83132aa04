"""Part 6: the stages of a miniature run, each on the card from the files of a run on a CPU.

`make_run` makes that run, where Snakemake is, and writes down the commands of its jobs. Here each
command is given the CPU's files again, so that stages do not build on each other's rounding.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.gpu_check.rows import record, skip
from benchmarks.harness import planned_jobs
from dpa.artefacts.jsonl import read_jsonl
from dpa.artefacts.sidecars import sidecar_path
from dpa.records import Annotation, ScoredSample
from dpa.runtime.run_environment import CLONE

EXPERIMENT = "benchmarks/gpu_check/run.yaml"
#: Points of 100 by which a reward may differ, and by how much a training's mean loss, of itself.
REWARDS, LOSS = 1.0, 0.02
#: The stages, one job of each.
STAGES = (
    "train_reward_model", "train_sft", "annotate_responses", "train_steerlm", "sample_responses",
    "score_responses", "select_responses", "finetune_policy", "train_dpo", "sample_evaluation",
)  # fmt: skip

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def make_run(folder: Path) -> None:
    """Make the run with Snakemake, and `commands.json` with a command of every stage."""
    folder.mkdir(parents=True, exist_ok=True)
    workflow = ["snakemake", "-s", str(CLONE / "Snakefile"), "--directory", str(folder.resolve())]
    workflow += ["--config", f"experiment={CLONE / EXPERIMENT}"]
    # Rules start `python`: this one.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path}
    command = [sys.executable, "-m", *workflow]
    subprocess.run([*command, "--cores", "all"], check=True, cwd=CLONE, env=environment)
    planned = subprocess.run(
        [*command, "-n", "-p", "--forceall"],
        check=True,
        cwd=CLONE,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    (folder / "commands.json").write_text(json.dumps(stage_commands(planned.stdout), indent=1))


def stage_commands(plan: str) -> dict[str, list[str]]:
    """Arguments of the first job of every stage, from what `snakemake -n -p` printed."""
    commands: dict[str, list[str]] = {}
    for script, arguments, _ in planned_jobs(plan):
        if script in STAGES:
            commands.setdefault(script, arguments)
    if missing := [stage for stage in STAGES if stage not in commands]:
        raise SystemExit(f"{EXPERIMENT}: no job of {', '.join(missing)} in the plan")
    return commands


@app.command()
def main(
    run: Annotated[Path, typer.Option(help="What make_run has made.")],
    small: Annotated[bool, typer.Option(help="All runs are small.")] = False,
) -> None:
    """Replay the stages of a run."""
    if not (run / "commands.json").exists():
        skip(f"{run}: no run to replay; make it on a CPU with --prepare {run}, and copy it here")
    commands = json.loads((run / "commands.json").read_text())
    for stage in STAGES:
        if stage in commands:
            replay(stage, commands[stage], run)


def replay(stage: str, arguments: list[str], run: Path) -> None:
    """Run a stage's command on a copy of the files, and compare what it writes."""
    outputs = [arguments[i + 1] for i, word in enumerate(arguments) if word.startswith("--output")]
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        shutil.copytree(run / "results", copy / "results", ignore=ignored(run, outputs))
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", f"scripts.{stage}", *arguments],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(CLONE)},
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - start
        print(done.stdout, done.stderr, file=sys.stderr)
        record(f"{stage}: exit status", done.returncode, at_most=0, seconds=round(seconds, 1))
        if not done.returncode:
            for output in outputs:
                compare(stage, run / output, copy / output)


def ignored(run: Path, outputs: list[str]):
    """For copytree: all that the stage writes, with sidecars."""
    paths = {str(run / output) for output in outputs}
    paths |= {str(sidecar_path(Path(path))) for path in paths}
    return lambda folder, names: [name for name in names if str(Path(folder) / name) in paths]


def compare(stage: str, expected: Path, found: Path) -> None:
    """Record by how much rewards and losses differ from the CPU's."""
    if stage in ("score_responses", "annotate_responses"):
        kind: Any = ScoredSample if stage == "score_responses" else Annotation
        pairs = zip(read_jsonl(expected, kind), read_jsonl(found, kind), strict=True)
        worst = max(
            float(np.abs(a.attributes[name] - b.attributes[name]))
            for a, b in pairs
            for name in a.attributes
        )
        record(f"{stage}: largest difference of a reward", worst, "points", at_most=REWARDS)
    elif stage.startswith(("train", "finetune")):
        losses = [
            json.loads(sidecar_path(path).read_text())["train_loss"] for path in (expected, found)
        ]
        record(f"{stage}: mean loss, of the CPU's", abs(losses[1] / losses[0] - 1), at_most=LOSS)
    elif stage in ("sample_responses", "sample_evaluation"):
        lines = [len(path.read_bytes().splitlines()) for path in (expected, found)]
        record(f"{stage}: records, beside the CPU's {lines[0]}", lines[1], at_least=lines[0])


if __name__ == "__main__":
    app()
