"""What a GPU does with this project: correct, and how fast, in eight minutes on one card.

    python -m benchmarks.gpu_check --output gpu.json

Run it on a new cluster to know what to expect, and before a change of the locked packages. Each
part is a process of its own with a time limit; its line is in the output as soon as it ends, with
what it had measured when it failed or ran out of time. Models are built on the card with random
weights. Neither vLLM, Snakemake nor a second card is needed. The last part replays a miniature run
that was made on a CPU; `--prepare` makes it, where Snakemake is installed:

    python -m benchmarks.gpu_check --prepare results/gpu_check
"""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.harness import machine

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

#: Parts with their seconds: what each takes on a card of the H100 class, with some room.
PARTS = {
    "environment": 20,
    "kernels": 30,
    "agreement": 100,
    "scoring": 110,
    "training": 150,
    "sampling": 70,
    "pipeline": 120,
}

#: Oldest versions that give right results, or have what is measured. Below transformers 5.19 the
#: loss of accumulated steps is wrong for models that are not language models: the reward model.
NEEDED = {
    "torch": "2.10",
    "transformers": "5.19",
    "trl": "1.16",
    "accelerate": "1.15",
    "datasets": "5.2",
    "peft": "0.18",
    "msgspec": "0.19",
    "pydantic": "2",
    "typer": "0.15",
    "pandas": "2",
    "pyyaml": "6",
    "moocore": "0.1",
}
#: Without --prepare's folder there is nothing to replay.
RUN = Path("results/gpu_check")


@app.command()
def main(
    output: Annotated[Path | None, typer.Option(help="JSON lines, one per part.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this part. Repeat.")] = None,
    small: Annotated[bool, typer.Option(help="Sizes for tests on a CPU.")] = False,
    run: Annotated[Path, typer.Option(help="The miniature run that --prepare made.")] = RUN,
    prepare: Annotated[Path | None, typer.Option(help="Make the miniature run here.")] = None,
) -> None:
    """Check a GPU, part by part."""
    if prepare is not None:
        from benchmarks.gpu_check.pipeline import make_run

        make_run(prepare)
        return
    if output is None:
        raise typer.BadParameter("give --output, or --prepare")
    wrong = unmet()
    print(f"packages: {'; '.join(wrong) or 'all there'}", flush=True)
    if wrong:
        raise SystemExit(2)
    if unknown := set(part or ()) - set(PARTS):
        raise typer.BadParameter(f"no part {', '.join(sorted(unknown))}; there are {[*PARTS]}")
    output.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    with output.open("w", encoding="utf-8") as lines:
        print(json.dumps({"machine": machine()}), file=lines, flush=True)
        for name in part or PARTS:
            found = measured(name, small, run)
            print(json.dumps(found), file=lines, flush=True)
            show(found)
            if found["status"] not in ("ok", "skipped") or any_unmet(found):
                failed.append(name)
    if failed:
        raise SystemExit(f"not as expected: {', '.join(failed)}; {output} has everything")


def unmet() -> list[str]:
    """Needed packages that are missing or too old, each with the version that is needed."""
    found = []
    for name, oldest in NEEDED.items():
        try:
            has = version(name)
        except PackageNotFoundError:
            found.append(f"{name} is missing (>= {oldest})")
            continue
        if _numbers(has) < _numbers(oldest):
            found.append(f"{name} {has} is too old (>= {oldest})")
    return found


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split("+")[0].split(".")[:2] if part.isdigit()]


def measured(name: str, small: bool, run: Path) -> dict[str, Any]:
    """A part's line: status, seconds, and what it recorded until it ended."""
    command = [sys.executable, "-m", f"benchmarks.gpu_check.{name}"]
    command += ["--small"] if small else []
    command += ["--run", str(run)] if name == "pipeline" else []
    start = time.perf_counter()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=PARTS[name])
            status = {0: "ok", 3: "skipped"}.get(process.returncode, f"exit {process.returncode}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, err = process.communicate()
            status = f"over {PARTS[name]} s"
    rows = [json.loads(line) for line in out.splitlines() if line.startswith('{"what": ')]
    found = {"part": name, "status": status, "seconds": round(time.perf_counter() - start, 1)}
    if status != "ok":
        found["end"] = err.strip().splitlines()[-8:]
    return found | {"rows": rows}


def any_unmet(found: dict[str, Any]) -> bool:
    return any(not row.get("met", True) for row in found["rows"])


def show(found: dict[str, Any]) -> None:
    """What people read while it runs."""
    print(f"\n{found['part']}: {found['status']}, {found['seconds']} s", flush=True)
    for row in found["rows"]:
        wanted = "" if "met" not in row else f"  ({'as' if row['met'] else 'NOT as'} expected: "
        wanted += row["expected"] + ")" if wanted else ""
        print(f"  {row['what']}: {row['value']} {row['unit']}{wanted}", flush=True)
    for line in found.get("end", ()):
        print(f"  | {line}", flush=True)


if __name__ == "__main__":
    app()
