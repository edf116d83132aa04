"""Selection of best-of-n from millions of scored records: seconds, memory, and pandas beside it.

    python -m benchmarks.measure_selection

writes scored shards (2.56 million records of 32,000 prompts, 5 GB), selects from a tenth, 0.2, 0.4
and all of them with the script of the rule, and compares with pandas. The script reads, checks
every record and writes the sidecar with the hashes of all inputs. The folder is deleted at the end.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from benchmarks.harness import QUICK, demand, publish
from dpa.directions import sample_direction
from dpa.runtime.run_environment import CLONE

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COMMAND = "python -m benchmarks.measure_selection"
PROMPTS, DIRECTIONS, RESPONSES, SHARDS = 32_000, 5, 16, 16
DISTRIBUTION = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
SEED, ITERATION = 0, 2
ATTRIBUTES = [
    "helpsteer-helpfulness", "helpsteer-correctness", "helpsteer-coherence",
    "helpsteer-complexity", "helpsteer-verbosity", "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following", "ultrafeedback-truthfulness",
    "ultrafeedback-honesty", "ultrafeedback-helpfulness",
]  # fmt: skip
#: What is demanded of the whole: seconds on two cores, and MiB.
SECONDS, MEMORY = 90, 1024
#: pandas keeps all it reads: it is given at most so many prompts.
PANDAS_PROMPTS = 3_200
#: Of --quick: prompts, and times as fast as pandas (of CPU seconds).
QUICK_PROMPTS, FLOOR = 400, 1.0


class Used(NamedTuple):
    wall: float
    cpu: float
    mib: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} s, {self.cpu:.1f} s of CPU, {self.mib:.0f} MiB"


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="For 6 GB of shards; it is deleted.")] = Path(
        "results/benchmarks/shards"
    ),
    quick: Annotated[bool, QUICK] = False,
) -> None:
    """Generate, select, compare."""
    folder = folder.resolve()
    if folder.exists():
        raise SystemExit(f"{folder}: exists; give a new folder, which will be deleted")
    try:
        compare(folder, quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compare(folder: Path, quick: bool) -> None:
    everything = QUICK_PROMPTS if quick else PROMPTS
    shards = write_shards(folder, everything, 4 if quick else SHARDS)
    (folder / "annotations.jsonl").touch()
    size = sum(path.stat().st_size for path in shards)
    print(f"{everything * DIRECTIONS * RESPONSES} records, {size / 1e9:.2f} GB", flush=True)

    # The same selection first: pandas on the beginning, in an order that is not ours.
    part = min(everything, QUICK_PROMPTS if quick else PANDAS_PROMPTS)
    few = beginning(folder / "part", shards, part)
    theirs = run("-m", "benchmarks.select_with_pandas", *map(str, few), str(folder / "pandas.json"))
    ours = select(folder, few[::-1], "part")
    assert chosen(folder / "part.jsonl") == json.loads((folder / "pandas.json").read_text())
    again = select(folder, few, "again")
    assert (folder / "part.jsonl").read_bytes() == (folder / "again.jsonl").read_bytes()
    faster = theirs.cpu / min(ours.cpu, again.cpu)
    if quick:
        demand("selection over pandas, CPU seconds", faster, FLOOR)
        return
    rows = [
        row(part, "pandas", theirs),
        row(
            part, f"ours: {faster:.1f}x less CPU, {theirs.wall / again.wall:.1f}x less time", again
        ),
    ]
    for share in (0.1, 0.2, 0.4, 1.0):
        count = round(everything * share)
        parts = beginning(folder / "part", shards, count) if share < 1 else shards
        used = select(folder, parts, "selected")
        rows.append(row(count, "ours", used))
    notes = (
        f"{size / 1e9:.2f} GB in {SHARDS} shards: {everything} prompts with {DIRECTIONS} "
        f"directions of {RESPONSES} responses. Whole processes, start and sidecar with hashes of "
        "all inputs included; memory is the peak of what is resident. Selections were equal to "
        f"pandas' on the first {part} prompts (pandas is not run on more, for memory), and the "
        "same bytes for shards in reverse."
    )
    publish("measure_selection", COMMAND, rows, notes)
    demand("allowed seconds over measured", SECONDS / used.wall, 1.0)
    demand("allowed memory over measured", MEMORY / used.mib, 1.0)


def row(prompts: int, what: str, used: Used) -> dict[str, str]:
    records = prompts * DIRECTIONS * RESPONSES
    return {
        "records": f"{records:,}",
        "side": what,
        "wall": f"{used.wall:.1f} s",
        "CPU": f"{used.cpu:.1f} s",
        "CPU per million": f"{used.cpu / records * 1e6:.1f} s",
        "memory": f"{used.mib:.0f} MiB",
    }


def write_shards(folder: Path, prompts: int, shards: int) -> list[Path]:
    """Scored shards in the pipeline's form: texts of log-normal length, random scores."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    letters = "etaoin shrdlu"
    words = ["".join(rng.choice(list(letters), rng.integers(2, 9))) for _ in range(2000)]
    texts = [
        json.dumps(" ".join(rng.choice(words, max(5, int(n)))))
        for n in rng.lognormal(5.2, 0.7, 4000)
    ]
    ids = [f"{i:016x}" for i in range(prompts)]
    with open(folder / "prompts.jsonl", "w") as file:
        for i, prompt in enumerate(ids):
            file.write(f'{{"prompt_id":"{prompt}","prompt":"Question {i}?","source":"x"}}\n')
    paths = []
    for shard, members in enumerate(np.array_split(np.arange(prompts), shards)):
        paths.append(folder / f"{shard}.jsonl")
        with open(paths[-1], "w", buffering=1 << 20) as file:
            for i in members:
                file.writelines(lines_of(ids[i], rng, texts))
    return paths


def lines_of(prompt: str, rng: np.random.Generator, texts: list[str]) -> Iterator[str]:
    scores = rng.uniform(0, 100, (DIRECTIONS, RESPONSES, len(ATTRIBUTES))).round(4).tolist()
    picks = rng.integers(0, len(texts), (DIRECTIONS, RESPONSES)).tolist()
    for index in range(DIRECTIONS):
        direction = json.dumps(sample_direction(DISTRIBUTION, SEED, ITERATION, prompt, index))
        for sample in range(RESPONSES):
            values = scores[index][sample]
            named = ",".join(f'"{n}":{v}' for n, v in zip(ATTRIBUTES, values, strict=True))
            helpful = round(sum(values[6:]) / 4, 4)
            yield (
                f'{{"prompt_id":"{prompt}","direction_index":{index},"direction":{direction},'
                f'"sample_index":{sample},"seed":{index * 65536 + sample},'
                f'"response":{texts[picks[index][sample]]},"finish_reason":"stop",'
                f'"prompt_tokens":120,"response_tokens":230,"attributes":{{{named}}},'
                f'"rewards":[{helpful},{values[4]}]}}\n'
            )


def beginning(folder: Path, shards: list[Path], prompts: int) -> list[Path]:
    """Shards of the first prompts only; a prompt file of them beside."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    left = prompts * DIRECTIONS * RESPONSES
    parts = []
    for shard in shards:
        if left:
            parts.append(folder / shard.name)
            with open(shard, "rb") as source, open(parts[-1], "wb") as target:
                for line in source:
                    if not left:
                        break
                    target.write(line)
                    left -= 1
    lines = (shards[0].parent / "prompts.jsonl").read_text().splitlines(keepends=True)
    (folder / "prompts.jsonl").write_text("".join(lines[:prompts]))
    return parts


def select(folder: Path, shards: list[Path], name: str) -> Used:
    """Run the rule's script."""
    return run(
        "-m", "scripts.select_responses",
        *(part for shard in shards for part in ("--scored", str(shard))),
        "--prompts", str(shards[0].parent / "prompts.jsonl"),
        "--annotations", str(folder / "annotations.jsonl"),
        "--iteration", str(ITERATION), "--seed", str(SEED),
        "--directions", json.dumps(DISTRIBUTION), "--directions-per-prompt", str(DIRECTIONS),
        "--responses-per-direction", str(RESPONSES), "--replay-fraction", "0",
        "--output", str(folder / f"{name}.jsonl"),
    )  # fmt: skip


def chosen(path: Path) -> list:
    """What was selected, in the form in which the pandas side writes it."""
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return [[r["prompt_id"], r["direction"], r["response"], r["rewards"]] for r in rows]


def run(*arguments: str) -> Used:
    """A process of Python: its seconds, and the most memory of it and its children together."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=CLONE)
    most = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        most = max(most, sum(map(resident, family(process.pid))))
        time.sleep(0.1)
    wall = time.perf_counter() - start
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise SystemExit(f"{arguments[1]} failed")
    return Used(wall, usage.ru_utime + usage.ru_stime, most / 1024)


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def resident(pid: int) -> int:
    """KiB of a process that it shares with none, and its part of the rest."""
    try:
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0


if __name__ == "__main__":
    app()
