"""How long a job takes, and the whole: the cost model, the critical path, a run on so many devices.

Arithmetic, per token, for M multiplied weights: 2 M forward, 6 M forward and backward, 8 M with
activations recomputed. Attention over past tokens is left out: 2 L q s of 2 M, 1 % at s = 560 for
Mistral-7B. A token of a reference or of the reward model costs 2 M.

Training and scoring take tokens x arithmetic / (devices x peak x utilisation). Decoding goes step
by step, a token for each of B sequences, and a step takes the longer of

    arithmetic   2 M B / (peak x utilisation)
    memory       (2 P + B x mean length x bytes of cache per token) / (bandwidth x utilisation)

and B x the engine's seconds per sequence, with B from what fits the cache (dpa.plan.memory).
Example, by hand: Mistral-7B on an A6000 (154.8 TFLOP/s, 768 GB/s), B = 256, prompts of 260 and
responses of 305 tokens, half of which is there on average, so 412.5: arithmetic 2 x 7.11e9 x 256 /
(154.8e12 x 0.4) = 58.8 ms; memory (14.48e9 + 256 x 412.5 x 131072) / (768e9 x 0.6) = 61.5 ms;
engine 256 x 10 us = 2.6 ms; so 256 / 64.0 ms = 3,999 tokens/s.

How much of a peak is reached is known as a range: each cost has two ends, SLOW and FAST.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from dpa.plan.assumptions import Assumptions, Device
from dpa.plan.fit import STAGES, recomputed
from dpa.plan.memory import cached_sequences
from dpa.plan.work import Experiment, Job, Work
from dpa.training.memory import Shape

#: The ends of ranges, as places in them: the least that is reached of a peak, and the most.
SLOW, FAST = 0, 1


@dataclass(frozen=True)
class JobCost:
    """A job's cost: its devices (GPUs, or cores of a CPU run) and how many seconds it has them."""

    seconds: float
    devices: int
    work: Work

    @property
    def device_hours(self) -> float:
        return self.seconds * self.devices / 3600


@dataclass(frozen=True)
class CostModel:
    """Seconds of work on a kind of device, at one end of what is assumed of it."""

    experiment: Experiment
    device: Device
    gpu: bool
    end: int

    @property
    def assumptions(self) -> Assumptions:
        return self.experiment.assumptions

    def cost(self, job: Job, work: Work) -> JobCost:
        """What a job costs. A light job of a GPU run holds a core, and no GPU but preflight's."""
        if work.light:
            start = self._seconds("start_gpu") if job.gpus else 0
            busy = self._seconds("light") + work.rows * self._seconds("per_row")
            return JobCost(start + busy, job.gpus if self.gpu else 1, work)
        devices = job.gpus if self.gpu else job.cores
        start = self._seconds("start_gpu" if self.gpu else "start_cpu")
        start += self._loaded_bytes(work) / 1e9 * self._seconds("per_gb_of_weights")
        recompute = job.rule in STAGES and recomputed(self.experiment, job.rule)
        return JobCost(start + self.busy_seconds(work, devices, recompute), devices, work)

    def busy_seconds(self, work: Work, devices: int, recompute: bool = False) -> float:
        """Without start-up. `recompute`: whether training recomputes activations."""
        training = 0.0
        if work.trained:
            training = work.trained / self.training_rate(self._trained(work), recompute)
        referring = self._arithmetic(work.referred * 2 * self.experiment.policy.multiplied,
                                     self._share("scoring"))  # fmt: skip
        sampling = 0.0
        if work.sampled:
            reading = work.read * 2 * self.experiment.policy.multiplied
            sampling = self._arithmetic(reading, self._share("prefill"))
            sampling += work.sampled / self.sampling_rate(work)
        scoring = work.scored / self.scoring_rate(work.by_judge) if work.scored else 0
        return (training + referring + sampling + scoring) / devices

    def _trained(self, work: Work) -> Shape:
        return self.experiment.base if work.of_reward_model else self.experiment.policy

    def training_rate(self, shape: Shape, recompute: bool) -> float:
        """Tokens per second and device, of forward and backward pass."""
        factor = 8 if recompute else 6
        rate = self._peak(self._share("training")) / (factor * shape.multiplied)
        return self._known("training", rate)

    def scoring_rate(self, by_judge: bool = False) -> float:
        """Tokens per second and device through the reward model, or the judge."""
        shape = self.experiment.judge if by_judge else self.experiment.reward
        rate = self._peak(self._share("scoring")) / (2 * shape.multiplied)
        return self._known("scoring", rate)

    def sampling_rate(self, work: Work) -> float:
        """Tokens per second and device while decoding sequences of the work's mean length."""
        config = self.experiment.config
        shape = self.experiment.policy
        slow = work.own_sampler or config.sampling.engine == "transformers"
        gpu_gb = config.plan.gpu_memory_gb
        longest = config.sampling.max_prompt_tokens + config.sampling.max_new_tokens
        batch = (
            cached_sequences(
                shape, self.assumptions, gpu_gb=gpu_gb, longest=longest, mean=work.sequence
            )
            if self.gpu and not slow
            else config.sampling.rows_per_batch
        )
        rate = decoding_rate(
            shape,
            peak=self._peak(self._share("decode")),
            bandwidth=self.device.bandwidth_gb_s * 1e9 * self._share("decode_bandwidth"),
            batch=batch,
            length=work.sequence - self.experiment.sizes.sampled_response / 2,
            # The more seconds the slower.
            between=self.assumptions.engine.seconds_per_sequence[1 - self.end],
        )
        share = self._share("transformers_engine") if slow else 1
        return self._known("sampling", rate * share)

    def _loaded_bytes(self, work: Work) -> float:
        """Of the models that a job loads, each once, as saved."""
        experiment = self.experiment
        models = [self._trained(work)] if work.trained else []
        if (work.sampled or work.referred) and experiment.policy not in models:
            models.append(experiment.policy)
        if work.scored:
            models.append(experiment.judge if work.by_judge else experiment.reward)
        return sum(map(experiment.model_bytes, models))

    def _seconds(self, of: str) -> float:
        """A field of Seconds: the more the slower."""
        return getattr(self.assumptions.seconds, of)[1 - self.end]

    def _share(self, of: str) -> float:
        """How much is reached of a peak; `of` is a field of Utilisation."""
        return getattr(self.assumptions.utilisation, of)[self.end]

    def _peak(self, utilisation: float) -> float:
        return self.device.tflops * 1e12 * utilisation

    def _arithmetic(self, operations: float, utilisation: float) -> float:
        return operations / self._peak(utilisation)

    def _known(self, stage: str, rate: float) -> float:
        """The measured rate, or else the model's, no faster than the device ever is."""
        measured = getattr(self.assumptions.measured, stage)
        return measured or min(rate, self.device.tokens_per_second.get(stage, rate))  # type: ignore[call-overload]


def decoding_rate(
    shape: Shape, *, peak: float, bandwidth: float, batch: int, length: float, between: float = 0
) -> float:
    """Tokens per second of a batch of sequences with `length` tokens in the cache on average.

    `between` two steps so many seconds go by for each sequence.
    """
    arithmetic = 2 * shape.multiplied * batch / peak
    memory = (2 * shape.parameters + batch * length * shape.kv_bytes) / bandwidth
    return batch / (max(arithmetic, memory) + batch * between)


# --- The whole run --------------------------------------------------------------------------------


def critical_path(jobs: Sequence[Job], costs: Sequence[JobCost]) -> list[int]:
    """The longest chain of jobs that wait for each other, in order: no cluster is faster."""
    best: list[float] = []
    before: list[int | None] = []
    for job, cost in zip(jobs, costs, strict=True):  # jobs come after those that they need
        last = max(job.needs, key=lambda i: best[i], default=None)
        best.append(cost.seconds + (best[last] if last is not None else 0))
        before.append(last)
    chain: list[int] = []
    at = max(range(len(jobs)), key=lambda i: best[i], default=None)
    while at is not None:
        chain.append(at)
        at = before[at]
    return chain[::-1]


@dataclass(frozen=True)
class SimulatedRun:
    """A run on a cluster: wall seconds, and bytes on disk at peak (the start's included)."""

    seconds: float
    peak_bytes: float


def simulate(
    jobs: Sequence[Job], costs: Sequence[JobCost], devices: int, stored: float
) -> SimulatedRun:
    """Jobs started as devices come free, those with most work after them first.

    A job that wants more devices than there are gets all of them. Light jobs take none, and outputs
    are kept for good (nothing is deleted); what is on disk before is `stored`.
    """
    after = [0.0] * len(jobs)
    waiting_for = [len(job.needs) for job in jobs]
    freed: list[list[int]] = [[] for _ in jobs]
    for i, job in enumerate(jobs):
        for need in job.needs:
            freed[need].append(i)
    for i in reversed(range(len(jobs))):
        after[i] = costs[i].seconds + max((after[j] for j in freed[i]), default=0)
    ready = [(-after[i], i) for i, job in enumerate(jobs) if not job.needs]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    free, now, disk, peak = devices, 0.0, stored, stored
    while ready or running:
        held: list[tuple[float, int]] = []
        while ready:
            item = heapq.heappop(ready)
            wanted = min(costs[item[1]].devices, devices)
            if wanted > free:
                held.append(item)
                break  # what is most urgent goes first, or small jobs would starve it
            free -= wanted
            disk += costs[item[1]].work.scratch
            heapq.heappush(running, (now + costs[item[1]].seconds, item[1]))
        peak = max(peak, disk)
        for item in held:
            heapq.heappush(ready, item)
        now, done = heapq.heappop(running)
        free += min(costs[done].devices, devices)
        disk += costs[done].work.keeps - costs[done].work.scratch
        peak = max(peak, disk)
        for i in freed[done]:
            waiting_for[i] -= 1
            if not waiting_for[i]:
                heapq.heappush(ready, (-after[i], i))
    return SimulatedRun(now, peak)
