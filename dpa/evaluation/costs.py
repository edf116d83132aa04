"""What a method cost, and what serving it takes, read off the files of a run.

Counts come from the sidecars of what was sampled, scored and trained; wall time from Snakemake's
benchmark files. Evaluation, data and the reward model are common to all methods and not counted,
but what feedback between DPA's iterations takes is DPA's.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dpa.artefacts.sidecars import read_sidecar
from dpa.errors import InputError
from dpa.registry import METHODS

_NAN = float("nan")

#: Artefact (path below the run) -> the benchmark of the job that made it. The first match counts;
#: an artefact that matches none is not worth counting. A policy's is below.
BENCHMARKS = [
    (r"annotations(?P<member>(?:/member\d+)?)/(?P<shard>[^/]+)\.jsonl",
     "annotate_responses{member}/{shard}"),
    (r"feedback/(?P<iter>iter\d+)/to_rate\.jsonl", "choose_samples_to_rate/{iter}"),
    (r"feedback/(?P<iter>iter\d+)/ratings\.jsonl", "annotate_feedback/{iter}"),
    (r"feedback/(?P<iter>iter\d+)/reward_model(?P<member>(?:/member\d+)?)/model",
     "retrain_reward_model{member}/{iter}"),
    (r"feedback/(?P<iter>iter\d+)/annotations(?P<member>(?:/member\d+)?)/(?P<shard>[^/]+)\.jsonl",
     "annotate_replay{member}/{iter}-{shard}"),
    (r"(?P<loop>.+)/(?P<iter>iter\d+)/sampled/(?P<shard>[^/]+)\.jsonl",
     "sample_responses/{loop}/{iter}-{shard}"),
    (r"(?P<loop>.+)/(?P<iter>iter\d+)/scored(?P<member>(?:/member\d+)?)/(?P<shard>[^/]+)\.jsonl",
     "score_responses{member}/{loop}/{iter}-{shard}"),
    (r"(?P<loop>.+)/(?P<iter>iter\d+)/selected\.jsonl", "select_responses/{loop}/{iter}"),
    (r"(?P<loop>.+)/(?P<iter>iter\d+)/pairs\.jsonl", "select_pairs/{loop}/{iter}"),
    (r"(?P<loop>.+)/(?P<iter>iter\d+)/kept\.jsonl", "reject_responses/{loop}/{iter}"),
]  # fmt: skip


#: Policies that are trained on labels of the data, and how many a training row has.
LABELS_OF_A_ROW = {"dpa/iter0/policy": 1, "steerlm/policy": 1, "dpo/policy": 2}


class Cost(NamedTuple):
    """What it took to make a method. NaN for what is not known."""

    tokens_sampled: float
    responses_scored: float
    tokens_trained: float
    seconds: float


def method_cost(run: Path, stages: Sequence[str]) -> Cost:
    """The cost of the `stages` that make up a method: folders below the `run`, such as `rsf/100_0`.

    - tokens sampled: of all responses (a sidecar with `responses` and `response_tokens`);
    - responses scored: those that the reward model read, equal ones once (`scored`);
    - tokens trained: response tokens in the training rows of all policies, each row counted once
      whatever the number of epochs (a policy's `response_tokens`); NaN if a policy does not say;
    - seconds: wall time of the jobs one after the other; NaN if a benchmark file is missing, as for
      a result that was taken over from another run.

    A policy that samples while it trains has one sidecar for all, with `responses`: each of them
    was scored and trained on (PPO), or `trained_tokens` says how much was (online DPO). What lies
    in two stages counts once. Without stages (a published model) everything is NaN. Raises
    InputError for a stage that was not made.
    """
    artefacts = sorted({artefact for stage in stages for artefact in _artefacts(run, stage)})
    if not artefacts:
        return Cost(_NAN, _NAN, _NAN, _NAN)
    costs = [_artefact_cost(run, artefact) for artefact in artefacts]
    return Cost(*map(sum, zip(*costs, strict=True)))


class Budget(NamedTuple):
    """What a method was given to learn from; methods are compared at equal ones. NaN: not known."""

    iterations: float
    responses_sampled: float
    labels: float


def method_budget(run: Path, stages: Sequence[str]) -> Budget:
    """The budget of the `stages` that make up a method, as of method_cost.

    - iterations: rounds of sampling and training; of Reward Soup's experts, which have equally
      many, those of one; 0 for methods without, NaN for those that sample in every step;
    - responses sampled: for training, of all experts;
    - labels: responses with rewards or ratings that it learns from: samples that were scored (equal
      ones once) or rated as feedback, original responses that SteerLM or iteration 0 is trained on,
      both answers of DPO's pairs. Replay brings no new ones.

    Without stages everything is NaN.
    """
    if not stages:
        return Budget(_NAN, _NAN, _NAN)
    rounds = [stage for stage in stages if re.search(r"/iter[1-9]\d*$", stage)]
    experts = {loop for loop in (r.rpartition("/")[0] for r in rounds) if "/" in loop}
    iterations = sum(r.split("/")[0] != "feedback" for r in rounds) / max(1, len(experts))
    artefacts = sorted({artefact for stage in stages for artefact in _artefacts(run, stage)})
    sampled = labels = 0.0
    for artefact in artefacts:
        sidecar, name = read_sidecar(artefact), artefact.relative_to(run).as_posix()
        sampled += (responses := sidecar.get("responses", 0))
        labels += sidecar.get("rated", 0)
        if "/scored/" in name and "/member" not in name:  # another member's are no others
            labels += sidecar.get("scored", 0)
        elif artefact.name == "policy":
            iterations = _NAN if responses else iterations
            labels += responses + LABELS_OF_A_ROW.get(name, 0) * sidecar.get("rows", 0)
    return Budget(iterations, sampled, labels)


def _artefacts(run: Path, stage: str) -> list[Path]:
    """Everything in a stage that has a sidecar and counts."""
    sidecars = (run / stage).rglob("*.meta.json")
    artefacts = [path.with_name(path.name.removesuffix(".meta.json")) for path in sidecars]
    if not (counted := [path for path in artefacts if _benchmark(run, path)]):
        raise InputError(f"{run / stage}: nothing with a sidecar; make it, or correct --stages")
    return counted


def _artefact_cost(run: Path, artefact: Path) -> Cost:
    sidecar = read_sidecar(artefact)
    tokens = sidecar.get("response_tokens", _NAN)
    policy = artefact.name == "policy"
    return Cost(
        tokens_sampled=tokens if "responses" in sidecar else 0,
        responses_scored=sidecar.get("scored", sidecar.get("responses", 0) if policy else 0),
        tokens_trained=sidecar.get("trained_tokens", tokens) if policy else 0,
        seconds=_seconds(_benchmark(run, artefact)),
    )


def _benchmark(run: Path, artefact: Path) -> Path | None:
    """The benchmark file of the job that made an artefact; None for what is not counted."""
    name = artefact.relative_to(run).as_posix()
    for pattern, benchmark in BENCHMARKS:
        if match := re.fullmatch(pattern, name):
            return run / "benchmarks" / f"{benchmark.format(**match.groupdict())}.tsv"
    stage, _, last = name.rpartition("/")
    if last != "policy":
        return None
    if stage == "dpa/iter0":
        return run / "benchmarks" / "train_initial_policy.tsv"
    name, _, rest = stage.partition("/")
    method = METHODS[name]
    rest = stage if method.is_loop else rest  # the benchmarks of loops are by the whole stage
    return run / "benchmarks" / f"{'/'.join(filter(None, (method.trained_by, rest)))}.tsv"


class JobCosts(NamedTuple):
    """What the jobs of a rule took; `part` tells a loop's iterations apart."""

    rule: str
    part: str
    jobs: int
    seconds: float
    cpu_seconds: float
    max_rss_mb: float


#: Rules that only show what others made. They are not costs, and run while costs are counted.
SHOWING = ("plot_", "make_table", "make_report")


def job_costs(run: Path) -> list[JobCosts]:
    """Wall time, CPU time and memory of a run's jobs, from all its benchmark files.

    Shards of the same stage are summed up, and memory is that of the largest job. NaN for what
    Snakemake could not measure (jobs of under a second).
    """
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for path in sorted((run / "benchmarks").rglob("*.tsv")):
        rule, _, part = (
            path.relative_to(run / "benchmarks").with_suffix("").as_posix().partition("/")
        )
        if not rule.startswith(SHOWING):
            part = re.sub(r"(^|/|iter\d+-)\d+$", lambda m: m[1].rstrip("/-"), part)
            found.setdefault((rule, part), []).append(
                (_column(path, "s"), _column(path, "cpu_time"), _column(path, "max_rss"))
            )
    return [
        JobCosts(rule, part, len(jobs), sum(j[0] for j in jobs), sum(j[1] for j in jobs),
                 max(j[2] for j in jobs))
        for (rule, part), jobs in found.items()
    ]  # fmt: skip


def _column(benchmark: Path, name: str) -> float:
    """The sum of a column of a benchmark file; NaN where Snakemake wrote NA or `-`."""
    try:
        with open(benchmark, newline="", encoding="utf-8") as file:
            values = [row[name] for row in csv.DictReader(file, delimiter="\t")]
        return sum(_NAN if value in ("NA", "-", "") else float(value) for value in values)
    except (KeyError, TypeError, ValueError, csv.Error):
        raise InputError(f"{benchmark}: no number in column {name}; delete the file") from None


def _seconds(benchmark: Path | None) -> float:
    """Wall seconds in a benchmark file, NaN without one. Raises InputError for a broken file."""
    if benchmark is None or not benchmark.exists():
        return _NAN
    try:
        with open(benchmark, newline="", encoding="utf-8") as file:
            return sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
    except (KeyError, TypeError, ValueError, csv.Error):
        raise InputError(
            f"{benchmark}: no seconds in column s; delete the file, and the method has no time"
        ) from None


def samples_per_answer(run: Path, method: str) -> float:
    """Responses that are sampled and scored for each answer of a method that chooses at
    inference."""
    sidecar = read_sidecar(run / "evaluation" / "sampled" / f"{method}.jsonl")
    return float(sidecar.get("samples_per_answer", _NAN))


def stored_models(method: str, objectives: int, directions: int) -> int:
    """How many models must be stored to serve all evaluation directions.

    One for SFT, SteerLM, DPA, directional and online DPO. Reward Soup stores its experts, one per
    objective, and averages their weights when a direction comes. PPO and RSF are trained for one
    fixed trade-off, so each direction needs a model of its own; the paper's table 1 says "single
    model" of PPO because it counts one trade-off only. DPO counts as one, as in the paper: the
    trade-off is its raters', and no training run could give it another.
    """
    numbers = {"one": 1, "per_objective": objectives, "per_direction": directions}
    return numbers[METHODS[method].models_stored]


def policy_bytes(run: Path, stages: Sequence[str]) -> float:
    """Bytes of one stored policy: the largest folder `policy` among the stages; NaN without any."""
    folders = [path for stage in stages for path in (run / stage).rglob("policy") if path.is_dir()]
    sizes = [sum(f.stat().st_size for f in d.rglob("*") if f.is_file()) for d in folders]
    return float(max(sizes, default=_NAN))
