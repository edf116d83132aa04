"""The plan as a table: a row per rule, in the order in which the run comes to it."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpa.errors import InputError
from dpa.plan.assumptions import Assumptions, device, shape_of
from dpa.plan.costs import CostModel, JobCost, critical_path, simulate
from dpa.plan.fit import Need, needs
from dpa.plan.work import Experiment, Job, work_of_job

#: Paper: GPU-hours of one iteration's fine-tuning (RTX A6000).
PAPER_GPU_HOURS = 60.0

PLAN_COLUMNS = ["rule", "jobs", "devices_per_job", "device_hours", "longest_job_hours", "tokens",
           "tokens_trained", "tokens_sampled", "tokens_scored", "gigabytes_kept"]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What plan_run prints and writes."""

    rows: list[dict]
    gpu: bool
    device: str
    devices: int
    path: list[tuple[str, float]]
    path_seconds: float
    wall_seconds: float
    peak_bytes: float
    stored_bytes: float
    needs: list[Need]
    one_iteration: tuple[float, float] | None
    """Device-hours and trained tokens of DPA's second iteration."""

    @property
    def device_hours(self) -> float:
        return sum(row["device_hours"] for row in self.rows)


def make_plan(
    experiment: Experiment,
    jobs: Sequence[Job],
    assumptions: Assumptions,
    *,
    device_name: str,
    devices: int,
) -> Plan:
    """The plan of an experiment's jobs (each after those that it needs) on `devices` devices."""
    gpu = experiment.config.compute.gpu
    model = CostModel(experiment, device(assumptions, device_name), gpu)
    costs = [model.cost(job, work_of_job(job, experiment)) for job in jobs]
    widest = max(range(len(jobs)), key=lambda i: costs[i].devices, default=None)
    if gpu and widest is not None and costs[widest].devices > devices:
        raise InputError(
            f"{jobs[widest].rule} takes {costs[widest].devices} GPUs (compute.training_processes "
            f"and training_nodes), more than the {devices} that the run may hold at a time; raise "
            "plan.gpus (--devices) or lower those"
        )
    stored = experiment.sizes.downloads + downloaded_models(experiment)
    run = simulate(jobs, costs, devices, stored)
    chain = critical_path(jobs, costs)
    by_rule: dict[str, list[JobCost]] = {}
    for job, cost in zip(jobs, costs, strict=True):
        by_rule.setdefault(job.rule, []).append(cost)
    finetuned = [
        cost
        for job, cost in zip(jobs, costs, strict=True)
        if job.rule == "finetune_policy" and job.wildcards["loop"] == "dpa"
    ]
    return Plan(
        rows=[_row(rule, some, gpu) for rule, some in by_rule.items()],
        gpu=gpu,
        device=device_name,
        devices=devices,
        path=[(_name(jobs[i]), costs[i].seconds) for i in chain],
        path_seconds=sum(costs[i].seconds for i in chain),
        wall_seconds=run.seconds,
        peak_bytes=run.peak_bytes,
        stored_bytes=stored,
        needs=needs(experiment, by_rule) if gpu else [],
        one_iteration=(
            (finetuned[0].device_hours, finetuned[0].work.trained) if finetuned else None
        ),
    )


def downloaded_models(experiment: Experiment) -> float:
    """Bytes of the hub's models in the cache, each once, at 16 bits a weight."""
    config = experiment.config
    dpo = config.dpo if "dpo" in config.methods else None
    given = [config.base_model, config.reward_model, config.sft, dpo]
    paths = {
        model.path: model
        for model in given
        if model and model.path and not Path(model.path).exists()
    }
    return sum(2 * shape_of(m, None, experiment.assumptions).parameters for m in paths.values())


def _row(rule: str, costs: Sequence[JobCost], gpu: bool) -> dict:
    # A light job of a GPU run holds a core, and no GPU.
    counted = [cost for cost in costs if not (gpu and cost.work.light and not cost.devices)]
    return {
        "rule": rule,
        "jobs": len(costs),
        "devices_per_job": max(cost.devices for cost in costs),
        "device_hours": sum(cost.device_hours for cost in counted),
        "longest_job_hours": max(cost.seconds for cost in costs) / 3600,
        "tokens": sum(cost.work.tokens for cost in costs),
        "tokens_trained": sum(cost.work.trained for cost in costs),
        "tokens_sampled": sum(cost.work.sampled for cost in costs),
        "tokens_scored": sum(cost.work.scored for cost in costs),
        "gigabytes_kept": sum(cost.work.keeps for cost in costs) / 1e9,
    }


def _name(job: Job) -> str:
    shown = [v for k, v in job.wildcards.items() if k != "experiment"]
    return " ".join([job.rule, *shown])


def as_csv(plan: Plan) -> str:
    """The rows in full, with a line of totals."""
    total = {"rule": "total", **{c: sum(r[c] for r in plan.rows) for c in PLAN_COLUMNS[1:]}}
    total["devices_per_job"] = max((r["devices_per_job"] for r in plan.rows), default=0)
    total["longest_job_hours"] = max((r["longest_job_hours"] for r in plan.rows), default=0)
    text = io.StringIO()
    writer = csv.DictWriter(text, PLAN_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in [*plan.rows, total]:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def as_text(plan: Plan) -> str:
    """The plan for people."""
    unit = "GPU" if plan.gpu else "core"
    header = ["rule", "jobs", f"{unit}s", f"{unit}-hours", "longest job", "tokens", "disk"]
    body = [
        [
            row["rule"],
            str(row["jobs"]),
            str(row["devices_per_job"]),
            f"{row['device_hours']:.1f}" if plan.gpu else f"{row['device_hours']:.3f}",
            duration(row["longest_job_hours"] * 3600),
            count(row["tokens"]),
            size(row["gigabytes_kept"] * 1e9),
        ]
        for row in plan.rows
    ]
    total = [
        "total",
        str(sum(row["jobs"] for row in plan.rows)),
        "",
        f"{plan.device_hours:.1f}" if plan.gpu else f"{plan.device_hours:.3f}",
        "",
        count(sum(row["tokens"] for row in plan.rows)),
        size(sum(row["gigabytes_kept"] for row in plan.rows) * 1e9),
    ]
    lines = [_aligned([header, *body, total])]
    lines += [
        "",
        f"Disk at peak: {size(plan.peak_bytes)}, of which {size(plan.stored_bytes)} downloads.",
        f"Wall time with {plan.devices} {plan.device} {unit}s at a time: "
        f"{duration(plan.wall_seconds)}, queueing not counted.",
        f"Critical path (any number of {unit}s): {duration(plan.path_seconds)}:",
        *(f"  {duration(seconds):>8}  {name}" for name, seconds in _folded(plan.path)),
    ]
    if plan.needs:
        lines += ["", "Memory of a GPU at peak:", *(f"  {need}" for need in plan.needs)]
    return "\n".join(lines) + "\n"


def _folded(path: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Without what takes no time to speak of (target rules)."""
    return [(name, seconds) for name, seconds in path if seconds > 0]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart: text to the left, numbers to the right, a rule around the body."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def duration(seconds: float) -> str:
    """
    >>> duration(59), duration(3600 * 5.25), duration(86400 * 3.5)
    ('59 s', '5.2 h', '3.5 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= (2 * length if unit != "min" else length):
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def count(number: float) -> str:
    """
    >>> count(0), count(1234), count(5.6e9)
    ('-', '1.2 k', '5.6 G')
    """
    for unit, length in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number:.0f}" if number else "-"


def size(number: float) -> str:
    """
    >>> size(0), size(2.5e6), size(3e12)
    ('-', '2.5 MB', '3.0 TB')
    """
    if number and number < 1e3:
        return f"{number:.0f} B"
    return f"{count(number)}B" if number else "-"


def paper_note(plan: Plan, experiment: Experiment) -> str | None:
    """The training figure beside the paper's, for a model of its size and a plan on GPUs.

    The paper's 60 A6000 GPU-hours per iteration are compared with this plan's fine-tuning on an
    A6000, whatever the plan is for.
    """
    if plan.one_iteration is None or not plan.gpu or not 6e9 < experiment.policy.parameters < 9e9:
        return None
    assumptions, sizes = experiment.assumptions, experiment.sizes
    tokens = plan.one_iteration[1]
    model = CostModel(experiment, assumptions.devices["a6000"], True)
    hours = tokens / model.training_rate(experiment.policy) / 3600
    share = assumptions.utilisation.training * hours / PAPER_GPU_HOURS
    row = experiment.conditioned_prompt() + sizes.sampled_response
    return (
        f"Fine-tuning of one DPA iteration is {hours:.0f} GPU-hours on A6000s by this model; the "
        f"paper reports {PAPER_GPU_HOURS:.0f}.\n"
        f"The difference is within what its inputs can be: at these {count(tokens)} tokens "
        f"{PAPER_GPU_HOURS:.0f} hours are {share:.2f} of the\npeak instead of "
        f"{assumptions.utilisation.training} (cards without NVLink reach less), or at this share "
        f"the mean row has {row * PAPER_GPU_HOURS / hours:.0f} tokens\ninstead of {row:.0f}. "
        "Neither is known of the paper's runs, nor what else its figure counts.\n"
    )
