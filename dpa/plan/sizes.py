"""Sizes of an experiment that a machine makes in so many hours, by what plan_run reckons with."""

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dpa.config.experiment import Config
from dpa.data.new_experiment import Machine, RunSizes
from dpa.errors import InputError
from dpa.plan.assumptions import device, load_assumptions
from dpa.plan.costs import FAST, SLOW, CostModel
from dpa.plan.fit import STAGES, Need, needs, training_processes
from dpa.plan.stages import stage_jobs
from dpa.plan.table import duration, span
from dpa.plan.work import Experiment, work_of_job
from dpa.runtime.gpus import nvidia_smi, visible_gpus
from dpa.workflow.layout import Layout

#: DPA's iterations, each with the prompts of a half that it is worth having.
ITERATIONS = ((3, 500), (2, 200), (1, 16))
#: What responses are cut to where even one iteration takes too long.
SHORTER = (512, 256, 128, 60)
#: For want of memory, sequences are not cut below this, nor are fewer tokens scored at a time.
SHORTEST, FEWEST_SCORED = 256, 4096
#: Weights from which on several threads are faster than one. Ours.
THREADED = 3e7
#: Most prompts of a half, iterations and tokens of a response where nothing can be worked out, with
#: a GPU and without. Ours.
UNPLANNED = {True: (2000, 3, 512), False: (48, 1, 60)}
#: What an unknown kind of GPU is taken for: the slowest of the known.
UNKNOWN_GPU = "l4"


class Chosen(NamedTuple):
    """Sizes; least and most hours of the jobs with a model; what does not fit a GPU's memory.

    No hours where the policy's shape is not known: the sizes are `UNPLANNED` then.
    """

    sizes: RunSizes
    hours: tuple[float, float] | None
    too_large: list[Need]


def choose_sizes(
    usual: RunSizes, machine: Machine, hours: float, load: Callable[[RunSizes], Config]
) -> Chosen:
    """The largest sizes that the machine can make within `hours`, or the smallest there are.

    `usual` has the most prompts and the longest responses; `load` gives the experiment of sizes.
    First everything is made to fit a GPU's memory, then the time.
    """
    assumptions = load_assumptions()
    config = load(usual)
    try:
        policy = Experiment(config, assumptions).policy
    except InputError:
        half, iterations, tokens = UNPLANNED[machine.gpu is not None]
        sizes = usual._replace(
            prompts_per_half=min(usual.prompts_per_half, half),
            iterations=iterations,
            max_new_tokens=min(usual.max_new_tokens, tokens),
        )
        return Chosen(sizes, None, [])
    if machine.gpu is None and policy.parameters > THREADED:
        usual = usual._replace(threads=machine.cores)
    smaller: RunSizes | None = usual
    while smaller is not None:
        sizes = smaller
        too_large = _too_large(Experiment(load(sizes), assumptions)) if machine.gpu else []
        smaller = _smaller(sizes, too_large)

    def hours_of(some: RunSizes) -> tuple[float, float]:
        return run_hours(Experiment(load(some), assumptions), machine)

    sizes = _largest(sizes, lambda some: hours_of(some)[1] <= hours)
    return Chosen(sizes, hours_of(sizes), too_large)


def _largest(sizes: RunSizes, fits: Callable[[RunSizes], bool]) -> RunSizes:
    """The most prompts; for them fewer iterations, and for one iteration shorter responses."""
    for tokens in dict.fromkeys(min(sizes.max_new_tokens, cut) for cut in SHORTER):
        for iterations, worth in ITERATIONS:
            tried = [
                sizes._replace(max_new_tokens=tokens, iterations=iterations, prompts_per_half=half)
                for half in _doubled(worth, sizes.prompts_per_half)
            ]
            if found := bisect_left(tried, True, key=lambda some: not fits(some)):
                return tried[found - 1]
    return tried[0]


def run_hours(experiment: Experiment, machine: Machine) -> tuple[float, float]:
    """Least and most hours of the jobs with a model, on all of the machine at any time."""
    config, gpu = experiment.config, machine.gpu is not None
    layout = Layout(config)
    jobs = [
        job._replace(
            gpus=training_processes(config) if job.rule in STAGES else 1, cores=config.threads
        )
        for job in stage_jobs(config, layout.trained_stages(), layout.policies())
    ]
    kind = device(experiment.assumptions, machine.gpu or "cpu")
    costs = [CostModel(experiment, kind, gpu, end) for end in (FAST, SLOW)]
    least, most = (
        sum(model.cost(job, work_of_job(job, experiment)).device_hours for job in jobs)
        for model in costs
    )
    devices = machine.gpus if gpu else config.threads
    return least / devices, most / devices


def _too_large(experiment: Experiment) -> list[Need]:
    layout = Layout(experiment.config)
    jobs = stage_jobs(experiment.config, layout.trained_stages(), layout.policies())
    return [need for need in needs(experiment, (job.rule for job in jobs)) if not need.fits]


def this_machine() -> Machine:
    """The GPUs that CUDA would show, by nvidia-smi; or the processor's cores."""
    visible = {gpu.uuid for gpu in visible_gpus()}
    told = nvidia_smi("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
    rows = (line.split(", ") for line in told.splitlines())
    cards = [row for row in rows if len(row) == 3 and row[0] in visible and row[2].isdecimal()]
    cores = len(os.sched_getaffinity(0))
    if not cards:
        return Machine(None, 0, 0, cores)
    smallest = round(min(int(row[2]) for row in cards) / 1024)
    return Machine(gpu_kind(cards[0][1]), len(cards), smallest, cores)


def gpu_kind(name: str) -> str:
    """A GPU's name in assumptions.yaml, from the one that its driver gives.

    >>> gpu_kind("NVIDIA A100-SXM4-80GB"), gpu_kind("GeForce RTX 4090"), gpu_kind("Tesla K80")
    ('a100-80gb', 'rtx-4090', 'l4')
    """
    parts = set(re.findall(r"[a-z0-9]+", name.lower()))
    known = (kind for kind in load_assumptions().devices if set(kind.split("-")) <= parts)
    return next(known, UNKNOWN_GPU)


def describe_sizes(chosen: Chosen, machine: Machine, hours: float, policy: str) -> str:
    """What was chosen for the machine, and what it takes there, in words."""
    sizes = chosen.sizes
    where = f"{machine.gpus} {machine.gpu}" if machine.gpu else f"{sizes.threads} cores"
    text = (
        f"{sizes.prompts_per_half} prompts a half, {sizes.iterations} iterations, responses of up "
        f"to {sizes.max_new_tokens} tokens: "
    )
    if chosen.hours is None:
        return (
            f"{text}the usual, for nothing is known of {policy} here. `hf download {policy} "
            "config.json`, and this command again, find those that suit the machine"
        )
    text += f"{span([3600 * end for end in chosen.hours], duration)} on {where} (estimated)"
    if chosen.hours[1] > hours:
        text += f"; less than that is no run, although it may take {hours:g} h (--hours)"
    for need in chosen.too_large:
        text += f"; {need}"
    return text


def _smaller(sizes: RunSizes, too_large: Sequence[Need]) -> RunSizes | None:
    """What takes less memory where something is too large, by the least loss; None for no more."""
    rules = {need.rule for need in too_large}
    if rules & set(STAGES):
        if not sizes.lora:
            return sizes._replace(lora=True)
        if sizes.batch_size > 1:
            return sizes._replace(batch_size=1)
    elif rules and sizes.tokens_per_batch > FEWEST_SCORED:
        return sizes._replace(tokens_per_batch=sizes.tokens_per_batch // 2)
    if rules and sizes.max_length >= 2 * SHORTEST:
        length = sizes.max_length // 2
        tokens = min(sizes.max_new_tokens, length // 2)
        return sizes._replace(max_length=length, max_new_tokens=tokens)
    return None


def _doubled(fewest: int, most: int) -> Iterator[int]:
    """
    >>> list(_doubled(16, 100)), list(_doubled(16, 10))
    ([16, 32, 64, 100], [10])
    """
    while fewest < most:
        yield fewest
        fewest *= 2
    yield most
