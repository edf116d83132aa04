"""How long scripts take to start: their help, their imports, and whole jobs that have little to do.

    git worktree add /tmp/before <commit>
    python -m benchmarks.measure_startup --baseline /tmp/before

Everything is the CPU seconds of a process of its own, children included. Help and imports are
compared with a bare `import typer`, jobs (on tiny models) with those of another checkout, whose
scripts must take the same flags and write the same bytes. --quick checks help, and imports of some
light scripts.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.harness import QUICK, REPEATS, demand, publish, ratio
from dpa.runtime.run_environment import CLONE

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COMMAND = "python -m benchmarks.measure_startup"
BARE = ["-c", "import typer"]
#: At most this many times a bare `import typer` (0.06 s), with a margin for noise.
HELP, IMPORTS = 5.0, 12.0
#: Scripts that import none of these are light.
HEAVY = ("torch", "matplotlib", "snakemake")
#: Some of those, for --quick.
LIGHT = ["prepare_data", "pair_ratings", "select_responses", "collect_validation_rewards"]
PLAN = ["experiment=mistral-7b", "shards=256", "methods=[dpa]"]
SCRIPTS = sorted(path.stem for path in (CLONE / "scripts").glob("[!_]*.py"))

#: Over config.yaml's sections.
SAMPLING = {
    "engine": "transformers", "max_new_tokens": 24, "max_prompt_tokens": 400,
    "max_truncated_fraction": 1.0,
}  # fmt: skip
TRAINER = {"bf16": False, "gradient_checkpointing": False, "packing": False, "save_steps": None}
SCHEDULE = {"learning_rate": 0.001, "batch_size": 8, "warmup_steps": 1, "max_length": 256}


@app.command()
def main(
    baseline: Annotated[Path | None, typer.Option(help="Another checkout.")] = None,
    repeats: Annotated[int, REPEATS] = 5,
    quick: Annotated[bool, QUICK] = False,
) -> None:
    """Measure help, imports and jobs."""
    rounds = 1 if quick else repeats
    imports = {script: imports_of(script) for script in SCRIPTS}
    light = LIGHT if quick else [script for script in SCRIPTS if is_light(imports[script])]
    bare, help, loaded = [], [], []
    for _ in range(rounds):
        bare.append(least_seconds(BARE))
        help.append({s: least_seconds(["-m", f"scripts.{s}", "--help"]) for s in SCRIPTS})
        loaded.append({s: least_seconds(["-c", imports[s]]) for s in (light if quick else SCRIPTS)})
    slowest = [
        ("`--help`, the slowest script", *worst(help, SCRIPTS), HELP),
        ("imports of light scripts, the slowest", *worst(loaded, light), IMPORTS),
    ]
    rows = []
    for name, script, seconds, most in slowest:
        times = ratio(seconds, bare)
        demand(f"{name} ({script}), allowed over measured", most / times.median, 1.0)
        cpu = f"{median(seconds):.2f} s"
        rows.append({"what": f"{name} (`{script}`)", "CPU": cpu, "compared": f"{times} bare"})
    if quick:
        return
    drawing = [s for s in SCRIPTS if s.startswith("plot_")]
    script, seconds = worst(loaded, drawing)
    plan = [cpu_seconds(["-m", "snakemake", "-n", "--quiet", "all", "--config", *PLAN])]
    rows += [
        {
            "what": f"imports of scripts that draw, the slowest (`{script}`)",
            "CPU": f"{median(seconds):.2f} s",
            "compared": f"{ratio(seconds, bare)} bare",
        },
        {
            "what": f"plan: `snakemake -n --quiet all --config {' '.join(PLAN)}`, four iterations",
            "CPU": f"{plan[0]:.1f} s",
            "compared": "at most 20 s",
        },
    ]
    rows += job_rows(baseline, repeats)
    notes = (
        "CPU seconds of whole processes, children included; `bare` is "
        f"`python -c 'import typer'`, {median(bare):.3f} s. Help and imports: the least of five. "
        "Jobs: on tiny models, nearly all of it start-up; the outputs of both checkouts were the "
        "same bytes."
    )
    publish("measure_startup", COMMAND, rows, notes)


def least_seconds(arguments: Sequence[str]) -> float:
    """The least of five runs: what else the machine does only adds to them."""
    return min(cpu_seconds(arguments) for _ in range(5))


def cpu_seconds(arguments: Sequence[str], folder: Path = CLONE) -> float:
    """CPU seconds of `python <arguments>`, and of whatever it starts. Ends when that fails."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise SystemExit(f"{arguments} failed: {said}")
    return usage.ru_utime + usage.ru_stime


def imports_of(script: str) -> str:
    """A program of a script's imports, those inside of its functions included."""
    tree = ast.parse((CLONE / f"scripts/{script}.py").read_text())
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    lines = sorted({ast.unparse(node) for node in found})
    return "\n".join(["from dpa.runtime.startup import script_starts", "script_starts()", *lines])


def is_light(program: str) -> bool:
    """Whether a script loads no models, draws nothing and plans nothing."""
    check = f"{program}\nimport sys\nsys.exit(any(name in sys.modules for name in {HEAVY}))"
    return subprocess.run([sys.executable, "-c", check], cwd=CLONE).returncode == 0


def worst(rounds: list[dict[str, float]], scripts: Sequence[str]) -> tuple[str, list[float]]:
    """The script with the highest median, and its seconds in each round."""
    script = max(scripts, key=lambda s: median(found[s] for found in rounds))
    return script, [found[script] for found in rounds]


def job_rows(baseline: Path | None, repeats: int) -> list[dict[str, str]]:
    """Seconds of jobs with little to do, here and in another checkout, in turns."""
    sides = {"ours": CLONE} | ({"baseline": baseline.resolve()} if baseline else {})
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        for kind in ("sample_responses", "score_responses", "train_sft"):
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            for turn in range(repeats):
                for side in sorted(sides, reverse=bool(turn % 2)):
                    arguments, output = job(kind, folder, folder / side)
                    output.unlink(missing_ok=True)
                    seconds[side].append(cpu_seconds(arguments, sides[side]))
            row = {"what": f"`{kind}`", "CPU": f"{median(seconds['ours']):.2f} s", "compared": "–"}
            if baseline:
                made = {job(kind, folder, folder / side)[1].read_bytes() for side in sides}
                assert len(made) == 1, f"{kind}: the outputs differ"
                times = ratio(seconds["baseline"], seconds["ours"])
                before = f"{median(seconds['baseline']):.2f} s"
                row["compared"] = f"baseline {before}: {times} ours"
            rows.append(row)
    return rows


def make_inputs(folder: Path) -> None:
    """Tiny models and a few rows."""
    from tests.support.tiny_models import make_chat_tokenizer, make_policy, make_reward_model

    make_policy(folder / "policy", make_chat_tokenizer())
    make_reward_model(folder / "rewards")
    prompts = [
        {"prompt_id": f"{i:04}", "prompt": f"Describe {i}.", "source": "x"} for i in range(4)
    ]
    turns = [[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]] * 16
    write(folder / "prompts.jsonl", prompts)
    write(folder / "chats.jsonl", [{"messages": messages} for messages in turns])
    script = job("sample_responses", folder, folder / "input")[0]
    cpu_seconds(script)


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def job(kind: str, folder: Path, side: Path) -> tuple[list[str], Path]:
    """Arguments of a script, and the file that it makes."""
    side.mkdir(exist_ok=True)
    weights = [{"name": "a", "outputs": {"quality": 1}}, {"name": "b", "outputs": {"length": 1}}]
    sampled, scored = side / "sampled.jsonl", side / "scored.jsonl"
    prompts = ["--prompts", str(folder / "prompts.jsonl")]
    chats = {"path": str(folder / "chats.jsonl")}
    arguments: dict[str, tuple[list[str], Path]] = {
        "sample_responses": (
            ["--policy", str(folder / "policy"), *prompts, "--iteration", "1", "--seed", "0",
             "--objective-names", "a,b", "--directions-per-prompt", "2",
             "--responses-per-direction", "2", "--sampling", json.dumps(SAMPLING),
             "--output", str(sampled)],
            sampled,
        ),
        "score_responses": (
            ["--reward-model", str(folder / "rewards"), *prompts,
             "--samples", str(folder / "input/sampled.jsonl"), "--objectives", json.dumps(weights),
             "--tokens-per-batch", "4096", "--output", str(scored)],
            scored,
        ),
        "train_sft": (
            ["--base-model", str(folder / "policy"), "--demonstrations", json.dumps(chats),
             "--schedule", json.dumps(SCHEDULE), "--trainer", json.dumps(TRAINER), "--seed", "0",
             "--output", str(side / "policy")],
            side / "policy/model.safetensors",
        ),
    }  # fmt: skip
    options, output = arguments[kind]
    return ["-m", f"scripts.{kind}", *options], output


if __name__ == "__main__":
    app()
