"""The plan as a table: a row per rule, in the order in which the run comes to it."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpa.config.base import ModelConfig
from dpa.config.experiment import GivenJudgeConfig
from dpa.config.feedback import EndpointAnnotatorConfig
from dpa.directions import grid_size
from dpa.errors import InputError
from dpa.plan.assumptions import Assumptions, device, shape_of
from dpa.plan.costs import FAST, SLOW, CostModel, JobCost, critical_path, simulate
from dpa.plan.fit import Need, needs
from dpa.plan.work import Experiment, Job, work_of_job

#: Paper: GPU-hours of one iteration's fine-tuning (RTX A6000).
PAPER_GPU_HOURS = 60.0

ENDS = ("least", "most")
#: What is known as a range, and has two columns: the least first.
RANGES = ["device_hours", "longest_job_hours"]
PLAN_COLUMNS = ["rule", "jobs", "devices_per_job",
                *(f"{name}_{end}" for name in RANGES for end in ENDS), "tokens",
                "tokens_trained", "tokens_sampled", "tokens_scored", "gigabytes_kept"]  # fmt: skip

#: Least and most.
Span = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """What plan_run prints and writes."""

    rows: list[dict]
    gpu: bool
    device: str
    devices: int
    path: list[tuple[str, Span]]
    path_seconds: Span
    wall_seconds: Span
    peak_bytes: float
    stored_bytes: float
    needs: list[Need]
    one_iteration: float | None
    """Trained tokens of one of DPA's iterations."""

    @property
    def device_hours(self) -> Span:
        least, most = (sum(row[f"device_hours_{end}"] for row in self.rows) for end in ENDS)
        return least, most


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
    works = [work_of_job(job, experiment) for job in jobs]
    models = [CostModel(experiment, device(assumptions, device_name), gpu, e) for e in (FAST, SLOW)]
    least, costs = (
        [model.cost(job, work) for job, work in zip(jobs, works, strict=True)] for model in models
    )
    widest = max(range(len(jobs)), key=lambda i: costs[i].devices, default=None)
    if gpu and widest is not None and costs[widest].devices > devices:
        raise InputError(
            f"{jobs[widest].rule} takes {costs[widest].devices} GPUs (compute.training_processes "
            f"and training_nodes), more than the {devices} that the run may hold at a time; raise "
            "plan.gpus (--devices) or lower those"
        )
    stored = experiment.sizes.downloads + downloaded_models(experiment)
    runs = [simulate(jobs, some, devices, stored) for some in (least, costs)]
    chain = critical_path(jobs, costs)
    by_rule: dict[str, list[int]] = {}
    for i, job in enumerate(jobs):
        by_rule.setdefault(job.rule, []).append(i)
    finetuned = [
        work.trained
        for job, work in zip(jobs, works, strict=True)
        if job.rule == "finetune_policy" and job.wildcards["loop"] == "dpa"
    ]
    return Plan(
        rows=[
            _row(rule, [least[i] for i in some], [costs[i] for i in some], gpu)
            for rule, some in by_rule.items()
        ],
        gpu=gpu,
        device=device_name,
        devices=devices,
        path=[(_name(jobs[i]), (least[i].seconds, costs[i].seconds)) for i in chain],
        path_seconds=(
            sum(least[i].seconds for i in critical_path(jobs, least)),
            sum(costs[i].seconds for i in chain),
        ),
        wall_seconds=(runs[0].seconds, runs[1].seconds),
        peak_bytes=max(run.peak_bytes for run in runs),
        stored_bytes=stored,
        needs=needs(experiment, by_rule) if gpu else [],
        one_iteration=finetuned[0] if finetuned else None,
    )


def downloaded_models(experiment: Experiment) -> float:
    """Bytes of the hub's models in the cache, each once, at 16 bits a weight."""
    config = experiment.config
    dpo = config.dpo if "dpo" in config.methods else None
    judge = config.evaluation.judge
    given: list[ModelConfig | None] = [config.base_model, config.reward_model, config.sft, dpo]
    given += [judge] if isinstance(judge, GivenJudgeConfig) else []
    paths = {
        model.path: model
        for model in given
        if model and model.path and not Path(model.path).exists()
    }
    return sum(2 * shape_of(m, None, experiment.assumptions).parameters for m in paths.values())


def _row(rule: str, least: Sequence[JobCost], costs: Sequence[JobCost], gpu: bool) -> dict:
    """`least` and `costs` are the ends of the same jobs' costs."""
    # A light job of a GPU run holds a core, and no GPU.
    spans = {
        f"{name}_{end}": value
        for end, some in zip(ENDS, (least, costs), strict=True)
        for name, value in {
            "device_hours": sum(
                c.device_hours for c in some if not (gpu and c.work.light and not c.devices)
            ),
            "longest_job_hours": max(cost.seconds for cost in some) / 3600,
        }.items()
    }
    return {
        "rule": rule,
        "jobs": len(costs),
        "devices_per_job": max(cost.devices for cost in costs),
        **spans,
        "tokens": sum(cost.work.tokens for cost in costs),
        "tokens_trained": sum(cost.work.trained for cost in costs),
        "tokens_sampled": sum(cost.work.sampled for cost in costs),
        "tokens_scored": sum(cost.work.scored for cost in costs),
        "gigabytes_kept": sum(cost.work.keeps for cost in costs) / 1e9,
    }


def _name(job: Job) -> str:
    shown = [v for k, v in job.wildcards.items() if k != "experiment" and v]
    return " ".join([job.rule, *shown])


def as_csv(plan: Plan) -> str:
    """The rows in full, with a line of totals."""
    total = {"rule": "total", **{c: sum(r[c] for r in plan.rows) for c in PLAN_COLUMNS[1:]}}
    total["devices_per_job"] = max((r["devices_per_job"] for r in plan.rows), default=0)
    for name in (f"longest_job_hours_{end}" for end in ENDS):
        total[name] = max((row[name] for row in plan.rows), default=0)
    text = io.StringIO()
    writer = csv.DictWriter(text, PLAN_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in [*plan.rows, total]:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def as_text(plan: Plan) -> str:
    """The plan for people."""
    unit = "GPU" if plan.gpu else "core"

    def hours(number: float) -> str:
        return f"{number:.1f}" if plan.gpu else f"{number:.3f}"

    header = ["rule", "jobs", f"{unit}s", f"{unit}-hours", "longest job", "tokens", "disk"]
    body = [
        [
            row["rule"],
            str(row["jobs"]),
            str(row["devices_per_job"]),
            span([row[f"device_hours_{end}"] for end in ENDS], hours),
            span([row[f"longest_job_hours_{end}"] * 3600 for end in ENDS], duration),
            count(row["tokens"]),
            size(row["gigabytes_kept"] * 1e9),
        ]
        for row in plan.rows
    ]
    total = [
        "total",
        str(sum(row["jobs"] for row in plan.rows)),
        "",
        span(plan.device_hours, hours),
        "",
        count(sum(row["tokens"] for row in plan.rows)),
        size(sum(row["gigabytes_kept"] for row in plan.rows) * 1e9),
    ]
    lines = [_aligned([header, *body, total])]
    lines += [
        "",
        f"Disk at peak: {size(plan.peak_bytes)}, of which {size(plan.stored_bytes)} downloads.",
        f"Wall time with {plan.devices} {plan.device} {unit}s at a time: "
        f"{span(plan.wall_seconds, duration)}, not counted:",
        "queueing, downloads, and waiting for the answers of servers.",
        f"Critical path (any number of {unit}s): {span(plan.path_seconds, duration)}:",
        *(f"  {span(seconds, duration):>19}  {name}" for name, seconds in _folded(plan.path)),
    ]
    if plan.needs:
        lines += ["", "Memory of a GPU at peak:", *(f"  {need}" for need in plan.needs)]
    return "\n".join(lines) + "\n"


def span(ends: Sequence[float], show: Callable[[float], str]) -> str:
    """
    >>> span([7200, 10800], duration), span([5, 5], duration)
    ('2.0 h - 3.0 h', '5 s')
    """
    return " - ".join(dict.fromkeys(map(show, ends)))


def _folded(path: Sequence[tuple[str, Span]]) -> list[tuple[str, Span]]:
    """Without what takes no time to speak of (target rules)."""
    return [(name, seconds) for name, seconds in path if seconds[1] > 0]


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


def annotation_note(experiment: Experiment, jobs: Sequence[Job]) -> str | None:
    """What a language model that rates samples between iterations is asked, and costs."""
    annotator = experiment.config.feedback.annotator
    iterations = sum(job.rule == "annotate_feedback" for job in jobs)
    if not isinstance(annotator, EndpointAnnotatorConfig) or not iterations:
        return None
    use = experiment.rating_use(annotator)
    dollars = use.dollars(annotator.price)
    return (
        f"Ratings by {annotator.model}: {iterations} jobs of about {count(use.calls)} calls, "
        f"{count(use.asked)} tokens asked and {count(use.answered)} answered,\n"
        f"${dollars:.2f} each (limit ${annotator.max_cost:.2f}), ${iterations * dollars:.2f} in "
        "all; what was answered before costs nothing.\n"
    )


def price_note(plan: Plan, price: float, experiment: Experiment, jobs: Sequence[Job]) -> str:
    """What a run costs in US dollars, at `price` for an hour of a GPU (of a core without GPUs).

    Where jobs are billed, the hours in use; where the machine is rented, all hours of the run.
    """
    unit = "GPU" if plan.gpu else "core"

    def money(hours: Sequence[float]) -> str:
        return span([price * each for each in hours], "${:,.2f}".format)

    rented = [plan.devices * seconds / 3600 for seconds in plan.wall_seconds]
    besides = "".join(
        f";\nbesides, ${dollars:,.2f} for {whom}"
        for whom, dollars in asked_dollars(experiment, jobs).items()
    )
    return (
        f"Cost at ${price:.2f} per {unit}-hour: {money(plan.device_hours)} for the {unit}-hours in "
        f"use; {money(rented)}\nwhere {plan.devices} {unit}s are paid for until the run "
        f"ends{besides}.\n"
    )


def asked_dollars(experiment: Experiment, jobs: Sequence[Job]) -> dict[str, float]:
    """US dollars for what language models of others are asked, by whom it is asked for."""
    from dpa.evaluation.alpacaeval_judges import expected_dollars

    config = experiment.config
    annotator, alpacaeval = config.feedback.annotator, config.alpacaeval
    rules = [job.rule for job in jobs]
    found = {}
    if isinstance(annotator, EndpointAnnotatorConfig):
        each = experiment.rating_use(annotator).dollars(annotator.price)
        found["ratings between iterations"] = rules.count("annotate_feedback") * each
    if alpacaeval is not None:
        each = expected_dollars(
            alpacaeval.judge, alpacaeval.prompts * grid_size(alpacaeval.directions)
        )
        found["AlpacaEval's judge"] = rules.count("judge_alpacaeval") * each
    return {whom: dollars for whom, dollars in found.items() if dollars}


def paper_note(plan: Plan, experiment: Experiment) -> str | None:
    """The training figure beside the paper's, for a model of its size and a plan on GPUs.

    The paper's 60 A6000 GPU-hours per iteration are compared with this plan's fine-tuning on an
    A6000, whatever the plan is for.
    """
    if plan.one_iteration is None or not plan.gpu or not 6e9 < experiment.policy.parameters < 9e9:
        return None
    assumptions, sizes = experiment.assumptions, experiment.sizes
    tokens, card = plan.one_iteration, assumptions.devices["a6000"]
    rates = [
        CostModel(experiment, card, True, end).training_rate(experiment.policy, True)
        for end in (FAST, SLOW)
    ]
    hours = [tokens / rate / 3600 for rate in rates]
    share = assumptions.utilisation.training[FAST] * hours[0] / PAPER_GPU_HOURS
    row = experiment.conditioned_prompt() + sizes.sampled_response
    return (
        f"Fine-tuning of one DPA iteration is {span(hours, '{:.0f}'.format)} GPU-hours on A6000s "
        f"by this model; the paper reports {PAPER_GPU_HOURS:.0f}:\n{share:.2f} of the peak, if the "
        f"mean row has {row:.0f} tokens ({count(tokens)} in all). Neither is known of the paper's "
        "runs,\nnor what else its figure counts.\n"
    )
