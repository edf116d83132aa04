"""Print what an experiment will take: jobs, GPU-hours, tokens, disk, time; and whether it fits.

No rule: for people, before they start a run. Example:

    python -m scripts.plan_run --experiment mistral-7b
    python -m scripts.plan_run --experiment mistral-7b --gpu a6000 --devices 8 --output plan.csv
    python -m scripts.plan_run --experiment mistral-7b --price 2.5
    python -m scripts.plan_run --experiment mistral-7b --remaining --config dpa.iterations=5

The jobs are those of Snakemake's own DAG: of an empty results folder, or with --remaining of what
is not there yet. Throughput comes from a cost model whose constants, with their sources, are in
dpa/plan/assumptions.yaml; --assumptions overlays numbers of your own, measured ones for instance
(`measured: {sampling: 5200}`). Ends with status 2 when a stage does not fit plan.gpu_memory_gb.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import ExperimentOption
from dpa.runtime.run_environment import CLONE

app = make_app()


@app.command()
def main(
    targets: Annotated[list[str] | None, typer.Argument(help="Targets of the run.")] = None,
    experiment: ExperimentOption = "",
    config: Annotated[list[str] | None, typer.Option(help="key=value, as for a run.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Kind of GPU; default: plan.gpu.")] = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs at a time (default: plan.gpus), or cores of a CPU run."),
    ] = None,
    assumptions: Annotated[
        Path | None, typer.Option(help="YAML laid over dpa/plan/assumptions.yaml.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="US dollars for an hour of a GPU; prints the cost.")
    ] = None,
    remaining: Annotated[bool, typer.Option(help="Only what is not there yet.")] = False,
    output: Annotated[Path | None, typer.Option(help="Also write the table as CSV.")] = None,
) -> None:
    """Print what an experiment will take."""
    import os

    from dpa.artefacts.outputs import write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.load import load_config
    from dpa.errors import InputError
    from dpa.plan.assumptions import load_assumptions
    from dpa.plan.table import (
        annotation_note,
        as_csv,
        as_text,
        make_plan,
        paper_note,
        price_note,
    )
    from dpa.plan.work import Experiment

    overrides = parse_overrides(config or [])
    if experiment:
        overrides["experiment"] = experiment
    loaded = load_config(overrides)
    numbers = load_assumptions(assumptions)
    planned = Experiment(loaded, numbers)
    jobs = jobs_of(overrides, targets or [], everything=not remaining)
    on_gpu = loaded.compute.gpu
    plan = make_plan(
        planned,
        jobs,
        numbers,
        device_name=gpu or (loaded.plan.gpu if on_gpu else "cpu"),
        devices=devices or (loaded.plan.gpus if on_gpu else os.cpu_count() or 1),
    )
    print(f"Plan of experiment {loaded.experiment} (estimated, not measured):\n")
    print(as_text(plan))
    cost = None if price is None else price_note(plan, price, planned, jobs)
    for note in (annotation_note(planned, jobs), cost, paper_note(plan, planned)):
        if note:
            print(note)
    if output is not None:
        write_text(output, as_csv(plan))
        write_sidecar(output, [], RowCounts.all_kept(len(plan.rows)))
        log.info("%d rules: %s", len(plan.rows), output)
    if too_large := [need for need in plan.needs if not need.fits]:
        raise InputError(
            "does not fit plan.gpu_memory_gb:\n" + "\n".join(f"  {need}" for need in too_large)
        )


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """--config's values as Snakemake reads them: key=value, the value being YAML."""

    from dpa.errors import InputError
    from dpa.runtime.sections import merge, parse_yaml

    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--config {setting}: expected key=value")
        nested = parse_yaml(value, f"--config {key}")
        for part in reversed(key.split(".")):
            nested = {part: nested}
        overrides = merge(overrides, nested)
    return overrides


def jobs_of(overrides: dict[str, Any], targets: list[str], everything: bool) -> list:
    """The jobs that Snakemake would run, each after those that it waits for.

    Raises InputError with Snakemake's message when there is no such run.
    """
    import logging

    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        OutputSettings,
        Quietness,
        ResourceSettings,
    )

    from dpa.errors import InputError

    logging.disable(logging.ERROR)  # what is wrong comes as an exception
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            # Cores without end, or Snakemake would give jobs fewer than their threads.
            resource_settings=ResourceSettings(cores=2**20),
            config_settings=ConfigSettings(config=overrides),
            snakefile=CLONE / "Snakefile",
        )
        try:
            asked = workflow.dag(DAGSettings(targets=set(targets), forceall=everything))
            asked.execute_workflow(executor="dryrun")
        except Exception as error:
            logging.disable(logging.NOTSET)
            raise InputError(f"snakemake cannot plan this run: {error}") from None
        # Snakemake's API executes and prints DAGs; the DAG itself is internal.
        dag = workflow._workflow.dag
        logging.disable(logging.NOTSET)
        return in_order(dag, set(dag.needrun_jobs(exclude_finished=False)))


def in_order(dag: Any, needed: set) -> list:
    """Snakemake's jobs as ours, in a fixed order, without target rules, which do nothing."""
    from graphlib import TopologicalSorter

    from dpa.plan.work import Job

    graph = {
        job: [before for before in dag.dependencies[job] if before in needed] for job in needed
    }
    depth: dict[Any, int] = {}
    for job in TopologicalSorter(graph).static_order():
        depth[job] = 1 + max((depth[before] for before in graph[job]), default=-1)
    ordered = sorted(
        (job for job in graph if job.rule.shellcmd),
        key=lambda job: (depth[job], job.rule.name, sorted(job.wildcards_dict.items())),
    )
    place = {job: number for number, job in enumerate(ordered)}
    return [
        Job(
            rule=job.rule.name,
            wildcards=dict(job.wildcards_dict),
            gpus=int(job.resources.get("gpu", 0) or 0),
            cores=job.threads,
            needs=tuple(place[before] for before in graph[job]),
        )
        for job in ordered
    ]


if __name__ == "__main__":
    run_app(app)
