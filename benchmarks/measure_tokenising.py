"""How long a GPU waits for tokens: rates of a CPU core, and what they make of the paper's sizes.

    python -m benchmarks.measure_tokenising

measures on one thread what texts take to become tokens of a vocabulary of 32,000, and both ways of
looking at a scoring job before its model is loaded: everything tokenised, or only long texts. A
training's rows are made by two workers as well: what these take, and what is left to the process
that reads rows and shares them out. Then a scoring job runs in which the device is a clock: it is
busy as long as plan_run's fastest H100, with tokens made between its passes, and ahead of them in a
thread. The rates, mistral-7b's rows and the same plan's hours give what share of each GPU job its
devices are idle for tokens.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.harness import QUICK, REPEATS, demand, publish, ratio, take_turns
from benchmarks.lengths import conversations, source
from dpa.artefacts.jsonl import decode_lines, encode
from dpa.artefacts.row_counts import RowCounts
from dpa.config.data import SourceConfig
from dpa.config.load import load_config
from dpa.data.sources import read_messages
from dpa.methods.sft import tokenise_conversations
from dpa.plan.assumptions import load_assumptions
from dpa.plan.costs import FAST, CostModel
from dpa.plan.fit import training_processes
from dpa.plan.work import Experiment, Job, work_of_job
from dpa.records import Rating
from dpa.reward.inputs import Group, RewardInputs
from dpa.reward.scorer import InputRow, Scorer
from dpa.reward.train import tokenise_ratings
from dpa.text.control_tokens import ControlTokens, reward_controls
from dpa.text.tokenization import ChatTokenizer
from dpa.training import shares

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COMMAND = "python -m benchmarks.measure_tokenising"
VOCABULARY, POSITIONS = 32_000, 32_768
#: CPU cores of each GPU, which mistral-7b asks for; and the workers that are measured.
CORES, WORKERS = 8, 2
#: How many times as fast a survey is as tokenising everything, at least.
FLOOR = 1.5


@app.command()
def main(quick: Annotated[bool, QUICK] = False, repeats: Annotated[int, REPEATS] = 3) -> None:
    """Measure rates of tokenising, and publish what GPU jobs lose by them."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    count = 8 if quick else 64
    groups = conversations(count, 8 if quick else 16, seed=3)
    inputs = RewardInputs(tokenizer(), None)
    pairs = [(prompt, answer) for prompt, answers in groups for answer in answers]
    scored_tokens = sum(len(ids) for ids, _ in inputs.tokenise(pairs))
    rated = [rating(*pair) for pair in pairs]
    short = [turns(pair) for pair in pairs]
    long = [turns(*pairs[i : i + 4]) for i in range(0, len(pairs), 4)]
    seconds = take_turns(
        {
            "scoring": lambda: inputs.tokenise(pairs),
            "survey": lambda: inputs.survey(groups, len(pairs)),
            "ratings": lambda: tokenise_ratings(tokenizer(), rated, ["a"], POSITIONS, RowCounts()),
            "conversations": lambda: rows_of(short),
            "UltraChat": lambda: rows_of(long),
        },
        1 if quick else repeats,
        time.process_time,
    )
    tokens = {
        "scoring": scored_tokens,
        "survey": scored_tokens,
        "ratings": scored_tokens,
        "conversations": rows_of(short),
        "UltraChat": rows_of(long),
    }
    rates = {name: tokens[name] / float(np.median(took)) for name, took in seconds.items()}
    training = training_rates(rated, short, long, copies=1 if quick else 8)
    survey = ratio(seconds["scoring"], seconds["survey"])
    between, ahead = busy_shares(groups, inputs)
    demand("a survey, times as fast as tokenising", survey.median, FLOOR)
    demand("a device is busy with tokens made ahead, times as much as without", ahead / between, 1)
    table = [
        {"what": f"{name}, tokens a second of a core", "found": f"{rate:,.0f}", "was": ""}
        for name, rate in rates.items()
    ]
    for name, found in training.items():
        table += [
            {"what": f"{name}, tokens a second of a worker's core", "found": f"{found.made:,.0f}",
             "was": ""},
            {"what": f"{name}, tokens a second of what shares them out",
             "found": f"{found.shared:,.0f}", "was": ""},
            {"what": f"{name}, tokens a second that are read", "found": f"{found.read:,.0f}",
             "was": ""},
        ]  # fmt: skip
    table += [
        {"what": "survey of a scoring job, times as fast as tokenising", "found": str(survey),
         "was": "1"},
        {"what": "device as fast as an H100 in a scoring job, busy", "found": f"{ahead:.1%}",
         "was": f"{between:.1%}"},
    ]  # fmt: skip
    for rule, (now, before) in idle_shares(rates, training).items():
        table.append(
            {"what": f"`{rule}` on H100, idle for tokens", "found": f"{now:.2%}",
             "was": f"{before:.2%}"}
        )  # fmt: skip
    if quick:
        return
    notes = (
        f"Lengths: {source()}. CPU seconds; the clock's rows are of the wall's clock. One thread, "
        f"and {WORKERS} workers of a training; {CORES} for each GPU are simulated."
    )
    publish("measure_tokenising", COMMAND, table, notes)


@cache
def tokenizer() -> Any:
    """Byte-level BPE of a real size with a chat template."""
    from dpa.quickstart.base_model import train_tokenizer

    found = conversations(605, 8, seed=1)
    made = train_tokenizer([text for p, answers in found for text in [p, *answers]], VOCABULARY)
    made.model_max_length = POSITIONS
    return made


@cache
def chat() -> ChatTokenizer:
    return ChatTokenizer(tokenizer())


def rating(prompt: Any, response: str) -> Rating:
    return Rating(
        prompt_id="0", prompt=prompt, response=response, attributes={"a": 50.0},
        dataset="benchmark", split="train",
    )  # fmt: skip


def turns(*pairs: tuple[Any, str]) -> list[dict]:
    """A conversation of so many questions and answers."""
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def rows_of(some: list[list[dict]]) -> int:
    """Tokenise conversations as fine-tuning does; returns their tokens."""
    rows = tokenise_conversations(chat(), some, POSITIONS, RowCounts())
    return sum(len(row["input_ids"]) for row in rows)


@dataclass(frozen=True)
class TrainingRates:
    """Tokens a second of CPU: of a worker, of what shares out rows, of what reads all of them."""

    made: float
    shared: float
    read: float

    def seconds(self, tokens: float, processes: int) -> float:
        """Until the rows of so many tokens are made, by processes with CORES workers each.

        Each reads all rows and shares its own out, while its workers make them.
        """
        own = tokens / processes
        return max(own / self.made / CORES, tokens / self.read + own / self.shared)


def training_rates(
    rated: list[Rating], short: list[list[dict]], long: list[list[dict]], copies: int
) -> dict[str, TrainingRates]:
    """The rates of each kind of rows, each made `copies` times."""

    def ratings(block: list[Rating]) -> tuple[Any, RowCounts]:
        counts = RowCounts()
        return tokenise_ratings(tokenizer(), block, ["a"], POSITIONS, counts)[0], counts

    def conversed(block: list[list[dict]]) -> tuple[Any, RowCounts]:
        counts = RowCounts()
        return tokenise_conversations(chat(), block, POSITIONS, counts), counts

    found = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"

        def read_ratings() -> Iterable[Any]:
            return decode_lines(path, Rating, counted=False)

        def read_conversations() -> Iterable[Any]:
            return read_messages(SourceConfig(path=str(path)), RowCounts())

        kinds: tuple[tuple[str, list[Any], Any, ControlTokens, Any], ...] = (
            ("ratings", rated, ratings, reward_controls(tokenizer()), read_ratings),
            ("conversations", short, conversed, chat().controls, read_conversations),
            ("UltraChat", long, conversed, chat().controls, read_conversations),
        )
        for name, items, make, controls, read in kinds:
            rows = ({"messages": item} if isinstance(item, list) else item for item in items)
            path.write_bytes(b"".join(map(encode, rows)) * copies)
            start = time.process_time()
            assert sum(1 for _ in read()) == len(items) * copies
            reading = time.process_time() - start
            found[name] = _with_workers(items * copies, make, controls, reading)
    return found


def _with_workers(
    items: list[Any], make: Callable[[list], Any], controls: ControlTokens, reading: float
) -> TrainingRates:
    shares.FEW_ITEMS, shares.usable_cores = 0, lambda: WORKERS  # type: ignore[assignment]
    before = os.times()
    made = shares.in_shares(items, make, controls)
    after = os.times()
    tokens = sum(len(row["input_ids"]) for rows, _ in made for row in rows)
    workers = sum(after[2:4]) - sum(before[2:4])
    own = sum(after[:2]) - sum(before[:2])
    return TrainingRates(tokens / workers, tokens / own, tokens / reading)


@cache
def plan() -> CostModel:
    """The paper's experiment on H100s, at its fastest: tokens are needed soonest there."""
    numbers = load_assumptions()
    experiment = Experiment(load_config({"experiment": "mistral-7b"}), numbers)
    return CostModel(experiment, numbers.devices["h100"], True, FAST)


class Clock(Scorer):
    """A device that computes nothing, and takes as long as the plan's."""

    busy = 0.0

    def _score(self, rows: list[InputRow], places: dict[tuple[int, str], int]) -> np.ndarray:
        shared = min(len(ids) for ids, _ in rows) // 2  # about what a prompt's inputs share
        tokens = shared + sum(len(ids) - shared for ids, _ in rows)
        seconds = tokens / plan().scoring_rate()
        time.sleep(seconds)
        self.busy += seconds
        return np.zeros((len(rows), len(self.names)))


def busy_shares(groups: list[Group], inputs: RewardInputs) -> tuple[float, float]:
    """What share of a scoring job its device is busy: tokens between its passes, and ahead."""
    found = []
    for stream in (False, True):
        scorer = Clock(inputs, ["a"])
        start = time.perf_counter()
        if stream:
            for _ in scorer.score_groups(groups):
                pass
        else:
            for group in groups:
                scorer.score_chunk([group])
        # Of the first group's tokens nothing can be ahead; a real job has thousands of groups.
        found.append(scorer.busy / (time.perf_counter() - start))
    return found[0], found[1]


def idle_shares(
    rates: dict[str, float], training: dict[str, TrainingRates]
) -> dict[str, tuple[float, float]]:
    """Rule -> what share of its seconds its devices wait for tokens, now and before.

    Before: each process of a training made all rows on one core; a scoring job tokenised everything
    twice, once of it before its first pass and once between passes.
    """
    model, experiment = plan(), plan().experiment
    config, sizes = experiment.config, experiment.sizes
    processes = training_processes(config)
    found = {}
    for rule, wildcards, kind, schedule in (
        ("train_reward_model", {}, "ratings", config.reward_model.schedule),
        ("train_steerlm", {}, "conversations", config.steerlm.schedule),
        (
            "finetune_policy",
            {"loop": "dpa", "iteration": "2"},
            "conversations",
            config.dpa.schedule,
        ),
    ):
        job = Job(rule, dict(wildcards), processes, 1, ())
        work = work_of_job(job, experiment)
        tokens = work.trained / schedule.epochs
        now = training[kind].seconds(tokens, processes)
        found[rule] = idle(model.cost(job, work).seconds, now, tokens / rates[kind])
    sft = config.model_copy(update={"sft": config.sft.model_copy(update={"path": None})})
    trained_here = Experiment(sft, experiment.assumptions)
    job = Job("train_sft", {}, processes, 1, ())
    work = work_of_job(job, trained_here)
    tokens = work.trained / sft.sft.schedule.epochs
    fast = CostModel(trained_here, model.device, True, FAST).cost(job, work).seconds
    now = training["UltraChat"].seconds(tokens, processes)
    found["train_sft"] = idle(fast, now, tokens / rates["UltraChat"])
    for rule, responses in (
        ("score_responses", config.dpa.directions_per_prompt * config.dpa.responses_per_direction),
        ("annotate_responses", sizes.originals),
    ):
        job = Job(rule, {"loop": "dpa", "iteration": "2"}, 1, 1, ())
        work = work_of_job(job, experiment)
        prompts = sizes.half / config.shards * (1 if rule == "score_responses" else 2)
        answer = sizes.sampled_response if rule == "score_responses" else sizes.response
        read = prompts * responses * (sizes.instruction + sizes.prompt + answer)
        busy = model.cost(job, work).seconds
        found[rule] = idle(busy, read / rates["survey"], 2 * read / rates["scoring"])
    return found


def idle(busy: float, now: float, before: float) -> tuple[float, float]:
    return now / (busy + now), before / (busy + before)


if __name__ == "__main__":
    app()
