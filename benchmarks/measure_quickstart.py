"""Where the time of a finished run goes: by rule, in starting up, and in Snakemake itself.

    snakemake --cores all
    python -m benchmarks.measure_quickstart

reads Snakemake's log and the benchmark file of every job. Start-up is what a script's imports take
here and now (CPU seconds), times its jobs. Orchestration is wall time in which no job ran, and the
time between a job's start and end in the log that its benchmark does not know.
"""

import csv
import re
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import typer

from benchmarks.harness import demand, publish
from benchmarks.measure_startup import cpu_seconds, imports_of

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COMMAND = "python -m benchmarks.measure_quickstart"
#: What the rules that run models import beside their scripts' own imports.
MODELS = "import dpa.generation.transformers_engine, dpa.reward.transformers_scorer"
RUN_MODELS = ("sample_", "score_", "evaluate_", "annotate_")
#: Rules that share a script.
SCRIPTS = {
    "train_initial_policy": "train_steerlm",
    "train_ric": "train_steerlm",
    "train_directional_dpo": "train_dpo",
}
#: Most of the wall time that may be orchestration.
ORCHESTRATION = 0.15


class Log(NamedTuple):
    """What Snakemake's log says: seconds of the run, and of each job from its start."""

    wall: float
    jobs: list[tuple[str, float, float]]


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="Where the run was started.")] = Path(),
    experiment: Annotated[str, typer.Option()] = "quickstart",
) -> None:
    """Account for a run's wall time and publish the account."""
    log = read_log(newest_log(folder))
    seconds = read_benchmarks(folder / "results" / experiment)
    count = Counter(rule for rule, _, _ in log.jobs)
    missing = {rule: n for rule, n in count.items() if n > len(seconds.get(rule, []))}
    print(f"jobs without a benchmark, counted as orchestration: {missing}")
    running = covered([(start, end) for _, start, end in log.jobs])
    intervals = sum(end - start for _, start, end in log.jobs)
    compute = sum(map(sum, seconds.values()))
    at_once = intervals / running
    orchestration = log.wall - running + max(intervals - compute, 0) / at_once
    rows = []
    startup_total = 0.0
    for rule in sorted(seconds, key=lambda r: -sum(seconds[r])):
        startup = startup_of(rule) * len(seconds[rule])
        startup_total += startup
        rows.append(
            {
                "rule": f"`{rule}`",
                "jobs": str(len(seconds[rule])),
                "seconds": f"{sum(seconds[rule]):.1f}",
                "share": f"{100 * sum(seconds[rule]) / compute:.1f} %",
                "start-up (CPU)": f"{startup:.1f}",
            }
        )
    rows.append(
        {
            "rule": "all",
            "jobs": str(len(log.jobs)),
            "seconds": f"{compute:.1f}",
            "share": "100 %",
            "start-up (CPU)": f"{startup_total:.1f}",
        }
    )
    share = orchestration / log.wall
    notes = (
        f"Wall time {log.wall:.0f} s, {at_once:.2f} jobs at once in the mean. No job ran for "
        f"{log.wall - running:.1f} s of it; each job took "
        f"{max(intervals - compute, 0) / len(log.jobs):.2f} s more by Snakemake's log than by its "
        f"benchmark: orchestration is {100 * share:.1f} % of the wall time. Start-up, measured "
        f"apart, is {100 * startup_total / compute:.0f} % of the jobs' seconds."
    )
    publish("measure_quickstart", COMMAND, rows, notes)
    demand("allowed orchestration over measured", ORCHESTRATION / share, 1.0)


def newest_log(folder: Path) -> Path:
    """The log of the last run that had anything to sample."""
    for path in sorted(folder.glob(".snakemake/log/*.log"), reverse=True):
        if "(Rule: sample_responses)" in path.read_text():
            return path
    raise SystemExit(f"{folder}: no log of a finished run in .snakemake/log")


def read_log(path: Path) -> Log:
    """Wall time, and (rule, start, end) of all jobs; the log's clock has whole seconds."""
    now = 0.0
    starts: dict[str, float] = {}
    jobs = []
    wall = None
    for line in path.read_text().splitlines():
        if found := re.match(r"\[(\w{3} \w{3} +\d+ [\d:]+ \d{4})\]", line):
            now = datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y").timestamp()
        elif found := re.match(r"Job (\d+):", line):
            starts[found[1]] = now
        elif found := re.match(r"Finished jobid: (\d+) \(Rule: (\w+)\)", line):
            if found[1] in starts:  # a target rule has no start
                jobs.append((found[2], starts[found[1]], now))
        elif found := re.match(r"Elapsed time: (?:(\d+) days?, )?(\d+):(\d+):([\d.]+)", line):
            days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
            wall = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if wall is None or not jobs:
        raise SystemExit(f"{path}: the run did not finish")
    return Log(wall, jobs)


def covered(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def read_benchmarks(results: Path) -> dict[str, list[float]]:
    """Wall seconds of every job by rule, from results/<experiment>[/seed<n>]/benchmarks."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for path in results.rglob("benchmarks/**/*.tsv"):
        parts = path.with_suffix("").parts
        rule = parts[parts.index("benchmarks", len(results.parts)) + 1]
        with open(path, newline="") as file:
            seconds[rule] += [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    return dict(seconds)


def startup_of(rule: str) -> float:
    """CPU seconds that one job of a rule takes to import what it needs, and to end."""
    program = imports_of(SCRIPTS.get(rule, rule))
    if rule.startswith(RUN_MODELS):
        program += f"\n{MODELS}"
    return median(cpu_seconds(["-c", program]) for _ in range(3))


if __name__ == "__main__":
    app()
