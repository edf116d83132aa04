"""What the benchmarks share: both sides in turns in one run, ratios, published rows.

Absolute times depend on the machine and on what else it does; a ratio of two sides that took turns
does so much less. Benchmarks therefore compare, and only ratios have floors.
"""

import json
import os
import platform
import re
import shlex
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from dpa.artefacts.outputs import replace_text
from dpa.artefacts.sidecars import PACKAGES, installed

MEASUREMENTS = Path(__file__).parents[1] / "docs/measurements.md"


@dataclass(frozen=True)
class Ratio:
    """How many times as long one side took as the other, over the repeats."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f}-{self.high:.2f})"


def take_turns(
    sides: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] | None = None
) -> dict[str, list[float]]:
    """Seconds of every side in each of `repeats` rounds.

    Each round runs every side once, in an order that turns by one from round to round, so that no
    side is always the first. `clock` defaults to the wall; time.process_time leaves out what other
    processes take, for work that is done in this one.
    """
    clock = clock or time.perf_counter
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            sides[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratio(slower: list[float], faster: list[float]) -> Ratio:
    """The ratio of two sides that take_turns measured, round by round."""
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def demand(name: str, measured: float, floor: float) -> None:
    """End with an error when a measured ratio is below its floor: the guard against regressions."""
    if measured < floor:
        raise SystemExit(f"{name}: {measured:.3f} is below its floor {floor}")
    print(f"{name}: {measured:.3f}, at least {floor}")


def machine() -> str:
    """Cores, memory and accelerator of this machine, Python, and the packages that matter."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{os.cpu_count()} cores ({cpu_model()}), {gib:.0f} GiB", *gpus()]
    packages = [f"{name} {found}" for name in PACKAGES if (found := installed(name))]
    return ", ".join([*parts, f"Python {platform.python_version()}", *packages])


def cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def gpus() -> Iterator[str]:
    if Path("/proc/driver/nvidia").exists():
        import torch

        yield from (torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def publish(
    name: str,
    command: str,
    rows: list[dict[str, str]],
    notes: str = "",
    document: Path = MEASUREMENTS,
) -> None:
    """Print the rows as a table, and put it into the document in the place of the last one.

    The place is what stands between `<!-- benchmarks.NAME -->` and `<!-- end -->`.
    """
    header = list(rows[0])
    lines = [f"`{command}`, on {machine()}.", "", *([notes, ""] if notes else [])]
    lines += ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(row[key] for key in header) + " |" for row in rows]
    table = "\n".join(lines) + "\n"
    print(table, flush=True)
    text = document.read_text()
    place = re.compile(rf"(<!-- benchmarks\.{name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise SystemExit(f"{document}: has no <!-- benchmarks.{name} --> ... <!-- end -->")
    replace_text(document, place.sub(lambda found: found[1] + table + found[2], text))


def planned_jobs(plan: str) -> list[tuple[str, list[str], str]]:
    """What `snakemake -n -p` printed: script, arguments and log of every job, in its order."""
    logged = r"(?:>|2>&1 \| tee) (\S+?)(?: 2>&1)?"
    jobs = re.findall(rf"^\s*\S.* -m scripts\.(\w+) (.*) {logged}$", plan, re.MULTILINE)
    return [(script, shlex.split(rest), log) for script, rest, log in jobs]


def nested(values: dict, key: str, value: Any) -> dict:
    """`values` with a dotted key set."""
    head, _, rest = key.partition(".")
    return values | {head: nested(values.get(head, {}), rest, value) if rest else value}


QUICK = typer.Option(help="A small version that only checks the floors, for CI. Publishes nothing.")
REPEATS = typer.Option(min=1, help="Rounds; every side runs once in each.")


def print_json(**values: object) -> None:
    """A line for those who read a benchmark's output with a program."""
    print(json.dumps(values), flush=True)
