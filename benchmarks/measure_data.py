"""Seconds and memory of prepare_data on synthetic data of the public data sets' sizes.

    python -m benchmarks.measure_data --folder /tmp/data

writes HelpSteer, UltraFeedback, its binarized prompts and BeaverTails into the folder, in the hub's
schemas and with the real row counts (docs/real-data.md) and texts of typical length, and loads them
as repositories: through datasets, as hub ids are, with an empty cache and again with a full one.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from functools import cache
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

#: Rows of the public files; UltraFeedback's have four completions each.
ROWS = {"helpsteer": 35_331, "ultrafeedback": 63_967, "train_prefs": 61_135, "test_prefs": 2_000}
BEAVERTAILS = {"330k_train": 300_567, "330k_test": 33_396}
JUDGEMENTS = 3
#: Words of a prompt, a response, and each of UltraFeedback's rationales.
PROMPT, RESPONSE, RATIONALE = 100, 200, 40


@app.command()
def main(folder: Annotated[Path, typer.Option(help="Where the data goes: 5 GB.")]) -> None:
    """Write the data once, then run prepare_data on it twice."""
    sources = write(folder)
    data = {
        "ratings": [
            {
                "name": "helpsteer",
                "format": "helpsteer",
                "train": sources("helpsteer", "train"),
                "validation": sources("helpsteer", "validation"),
            },
            {
                "name": "ultrafeedback",
                "format": "ultrafeedback",
                "train": sources("ultrafeedback", "train"),
            },
            {
                "name": "beavertails",
                "format": "beavertails",
                "train": sources("beavertails", "330k_train"),
                "validation": sources("beavertails", "330k_test"),
            },
        ],
        "train_prompts": [sources("binarized", "train_prefs")],
        "validation_prompts": [sources("binarized", "test_prefs")],
    }
    for state in ("empty", "full"):
        print(f"cache {state}: {measure(folder, data)}", flush=True)


def measure(folder: Path, data: dict) -> str:
    """Run prepare_data; its seconds, its CPU seconds, its highest resident memory."""
    outputs = [f"--output-{n}={folder / n}.jsonl" for n in ("ratings", "d1", "d2", "validation")]
    start = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "scripts.prepare_data"),
            *("--seed=0", f"--data={json.dumps(data)}", *outputs),
        ],
        env={**os.environ, "HF_HOME": str(folder / "cache")},
    )
    own = mapped = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        sizes = dict(re.findall(r"^(RssAnon|VmHWM):\s+(\d+) kB", status, re.MULTILINE))
        own = max(own, int(sizes.get("RssAnon", 0)))
        mapped = max(mapped, int(sizes.get("VmHWM", 0)))
        time.sleep(0.2)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise typer.Exit(1)
    return (
        f"{time.perf_counter() - start:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of CPU, "
        f"at most {own // 1024} MiB of memory, {mapped // 1024} MiB with mapped files"
    )


def write(folder: Path):
    """Write the repositories unless they are there; returns a function that names their splits."""
    from tests.support import hub_files as hub

    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5000)]
    number = count(1)

    @cache
    def pool(length: int) -> list[str]:
        lengths = [max(3, int(rng.expovariate(1 / length))) for _ in range(2000)]
        return [" ".join(rng.choices(words, k=k)) for k in lengths]

    def text(length: int) -> str:
        """A text of this many words in the mean, unlike all others."""
        return f"{next(number)} {rng.choice(pool(length))}"

    def completion(model: str) -> dict:
        rating = rng.choice("12345")
        row = hub.completion(model, (rating,) * 4, float(2 * int(rating)), text(RESPONSE))
        for annotation in row["annotations"].values():
            for key in ("Rationale", "Rationale For Rating"):
                if key in annotation:
                    annotation[key] = text(RATIONALE)
        return {**row, "critique": text(RATIONALE)}

    def judgements(size: int) -> list[dict]:
        """Answers to a prompt together, the judgements of an answer apart."""
        rows: list[dict] = []
        while len(rows) < size:
            prompt = text(20)
            pairs = [(prompt, text(60)) for _ in range(8)] * JUDGEMENTS
            rows += [hub.beavertails_row(*pair, rng.random() < 0.45) for pair in pairs]
        return rows[:size]

    names = ("helpsteer", "ultrafeedback", "binarized", "beavertails")
    if not (folder / "beavertails").exists():
        for name in names:
            (folder / name).mkdir(parents=True)
        prompts = [text(PROMPT) for _ in range(ROWS["ultrafeedback"])]
        sources = ("sharegpt", "flan", "evol_instruct", "ultrachat", "false_qa")
        hub.write_ultrafeedback(
            folder / "ultrafeedback",
            (
                hub.ultrafeedback_row(p, [completion(m) for m in "abcd"], rng.choice(sources))
                for p in prompts
            ),
        )
        train, held = ROWS["train_prefs"], ROWS["test_prefs"]
        hub.write_binarized(
            folder / "binarized",
            train_prefs=[hub.binarized_row(p) for p in prompts[:train]],
            test_prefs=[hub.binarized_row(p) for p in prompts[train : train + held]],
        )
        hub.write_helpsteer(
            folder / "helpsteer",
            [hub.helpsteer_row(text(PROMPT), text(RESPONSE)) for _ in range(ROWS["helpsteer"])],
            [hub.helpsteer_row(text(PROMPT), text(RESPONSE)) for _ in range(1789)],
        )
        hub.write_beavertails(
            folder / "beavertails", "330k", *map(judgements, BEAVERTAILS.values())
        )

    def source(name: str, split: str) -> dict[str, str]:
        return {"path": str(folder / name), "revision": "locked", "split": split}

    return source


if __name__ == "__main__":
    app()
