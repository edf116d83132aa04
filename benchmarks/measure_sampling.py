"""Sampling: the whole stage against the raw engine, and ours against a plain `generate` loop.

    python -m benchmarks.measure_sampling

Two questions on the same requests, in turns, in tokens a second: what is lost between prompts and
closed JSONL (against the engine's own generate, after start-up), for every engine that is
installed; and what the transformers engine gains over model.generate on fixed batches in file
order. Completions are compared first: of seeds with the raw engine, greedily with model.generate,
which knows no seeds per row. Start-up is timed in processes of its own.

The model is random and ends a response with the same probability after each token. Lengths are
then geometric: their logarithm has a deviation of 1.28, that of the real ones 1.25
(benchmarks.lengths), and the same mean.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import dpa.generation.sample
from benchmarks.harness import QUICK, REPEATS, Ratio, demand, publish, ratio, take_turns
from benchmarks.lengths import conversations, source
from benchmarks.models import llama_config, make_tokenizer, single_thread
from dpa.artefacts.jsonl import encode, read_jsonl
from dpa.config.sampling import SamplingConfig
from dpa.errors import InputError
from dpa.generation.engine import Chunk, Request
from dpa.generation.load import load_engine
from dpa.records import Prompt, Sample
from dpa.text.prompts import prompt_id, read_prompts

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COMMAND = "python -m benchmarks.measure_sampling"
#: Mean tokens of a response: exp(mu + 0.577) of the real distribution, whose mu is 4.55.
MEAN_TOKENS = 168
START_UPS = 2

#: Of --quick, with a margin for noise; what a stage costs once weighs much in so small a run.
FLOOR_STAGE, FLOOR_PLAIN = 0.6, 1.6


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is sampled: prompts times samples, so many rows at a time."""

    prompts: int
    samples: int
    rows: int
    max_new_tokens: int
    mean_tokens: int


FULL, FULL_ON_GPU = Size(8, 16, 32, 1024, MEAN_TOKENS), Size(64, 80, 256, 1024, MEAN_TOKENS)
SMALL = Size(3, 16, 16, 64, 12)


@app.command()
def main(
    quick: Annotated[bool, QUICK] = False,
    repeats: Annotated[int, REPEATS] = 3,
) -> None:
    """Measure both questions and publish the ratios."""
    gpu = torch.cuda.is_available()
    if not gpu:
        single_thread()
    repeats = 3 if quick else repeats
    size = SMALL if quick else FULL_ON_GPU if gpu else FULL
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = make_policy(folder / "policy", size)
        prompts = write_prompts(folder / "prompts.jsonl", size)
        for engine_name in ("transformers",) if quick else ("transformers", "vllm"):
            try:
                engine = load(engine_name, path, size)
            except InputError as error:
                print(f"skipped: {error}", flush=True)
                continue
            chunks = planned(engine.chat, prompts, size)
            found = compare_stage(engine, engine_name, path, prompts, chunks, size, repeats, folder)
            rows.append(found)
            if engine_name == "transformers":
                rows.append(compare_plain(engine, path, chunks, size, repeats))
            engine.close()
            if not quick:
                rows.append(start_ups(engine_name, path, size))
            print(rows[-1], flush=True)
    if quick:
        demand("sampling: stage against raw engine", number(rows[0]), FLOOR_STAGE)
        demand("sampling: against a plain generate loop", number(rows[1]), FLOOR_PLAIN)
        return
    notes = (
        f"{size.prompts} prompts, {size.samples} samples each, {size.mean_tokens} tokens in the "
        f"mean; prompts: {source()}. {size.rows} rows at a time (transformers). "
        + (
            ""
            if gpu
            else "One thread, CPU seconds. Figures for a GPU are unmeasured: none was there."
        )
    )
    publish("measure_sampling", COMMAND, rows, notes)


def number(row: dict[str, str]) -> float:
    return float(row["ratio"].split("x")[0])


# --- What is sampled ---------------------------------------------------------------------------


def make_policy(folder: Path, size: Size) -> Path:
    """A random policy that ends with probability 1 / mean_tokens after each token.

    Its predictions are nearly uniform; so many of its tokens are end tokens.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    smaller = {"num_hidden_layers": 2} if size is SMALL else {}
    model = AutoModelForCausalLM.from_config(llama_config(initializer_range=0.01, **smaller))
    vocabulary = len(tokenizer)
    random = np.random.default_rng(0)
    ends = random.choice(np.arange(1000, vocabulary), vocabulary // size.mean_tokens, replace=False)
    model.generation_config = GenerationConfig(
        eos_token_id=ends.tolist(), pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_prompts(path: Path, size: Size) -> Path:
    texts = [" ".join(text.split()[:400]) for text, _ in conversations(size.prompts, 1, seed=5)]
    path.write_bytes(
        b"".join(encode(Prompt(prompt_id=prompt_id(t), prompt=t, source="b")) for t in texts)
    )
    return path


def sampling_of(engine: str, size: Size) -> SamplingConfig:
    return SamplingConfig(
        engine=engine,  # type: ignore[arg-type]
        kv_cache_dtype="auto",
        temperature=1.0,
        max_new_tokens=size.max_new_tokens,
        max_prompt_tokens=1024,
        prompts_per_chunk=size.prompts,
        rows_per_batch=size.rows,
        max_truncated_fraction=1.0,
    )


def load(name: str, policy: Path, size: Size, **options: Any) -> Any:
    settings = {"temperature": 1.0, "max_new_tokens": size.max_new_tokens, **options}
    return load_engine(
        name,  # type: ignore[arg-type]
        policy,
        max_model_len=1024 + size.max_new_tokens,
        rows_per_batch=size.rows,
        **settings,
    )


def steer(size: Size) -> Any:
    return dpa.generation.sample.always([dpa.generation.sample.Steering(-1, samples=size.samples)])


def planned(chat: Any, prompts: Path, size: Size) -> list[Chunk]:
    """The requests that the stage makes of the prompt file: one chunk."""
    chunk: Chunk = []
    for prompt in read_prompts(prompts):
        [steering] = steer(size)(prompt.prompt_id)
        chunk.append(dpa.generation.sample.request_for(prompt, steering, chat, ["a"], 0, 1))
    return [chunk]


# --- The stage against the raw engine ----------------------------------------------------------


def compare_stage(
    engine: Any,
    name: str,
    policy: Path,
    prompts: Path,
    chunks: list[Chunk],
    size: Size,
    repeats: int,
    folder: Path,
) -> dict[str, str]:
    """The whole stage with a started engine, against the engine's own generate."""
    output = folder / f"{name}.jsonl"

    def stage() -> None:
        output.unlink(missing_ok=True)
        forget(engine)
        dpa.generation.sample.sample_file(
            output,
            policy=policy,
            prompts=prompts,
            steer=steer(size),
            names=["a"],
            sampling=sampling_of(name, size),
            seed=0,
            iteration=1,
        )

    texts: list[str] = []

    def raw() -> None:
        forget(engine)
        texts[:] = raw_vllm(engine, chunks) if name == "vllm" else raw_transformers(engine, chunks)

    real, settings = dpa.generation.sample.load_engine, engine.settings

    def lend(*_: Any, **options: Any) -> Any:
        engine.settings = dataclasses.replace(settings, on_tokens=options["on_tokens"])
        return Lent(engine)

    dpa.generation.sample.load_engine = lend  # type: ignore[assignment]
    try:
        stage()
        raw()
        samples = list(read_jsonl(output, Sample))
        if [sample.response for sample in samples] != texts:
            raise SystemExit(f"{name}: the stage and the raw engine differ")
        seconds = take_turns({"stage": stage, "raw": raw}, repeats, clock())
    finally:
        dpa.generation.sample.load_engine = real
        engine.settings = settings
    tokens = sum(sample.response_tokens for sample in samples)
    return row(
        f"{name}: whole stage, share of the raw engine's generate",
        ratio(seconds["raw"], seconds["stage"]),
        tokens / float(np.median(seconds["stage"])),
        tokens / float(np.median(seconds["raw"])),
    )


class Lent:
    """A started engine that whoever uses it cannot close."""

    def __init__(self, engine: Any) -> None:
        self.chat, self.generate = engine.chat, engine.generate

    def close(self) -> None:
        pass


def forget(engine: Any) -> None:
    """No prompt is in a cache from the round before."""
    if hasattr(engine, "llm"):
        engine.llm.reset_prefix_cache()


def raw_vllm(engine: Any, chunks: list[Chunk]) -> list[str]:
    """vLLM's generate, with all requests at once."""
    from vllm import SamplingParams, TokensPrompt

    from dpa.seeds import short_seed

    requests = [(r.prompt_ids, seed) for chunk in chunks for r in chunk for seed in r.seeds]
    outputs = engine.llm.generate(
        [TokensPrompt(prompt_token_ids=ids) for ids, _ in requests],
        [
            SamplingParams(
                seed=short_seed(seed) if engine.on_cpu else seed,
                temperature=1.0,
                max_tokens=engine.settings.max_new_tokens,
                ignore_eos=True,
                stop_token_ids=engine.settings.end_tokens,
            )
            for _, seed in requests
        ],
        use_tqdm=False,
    )
    return [text_of(engine, output.outputs[0]) for output in outputs]


def text_of(engine: Any, output: Any) -> str:
    ids = list(output.token_ids)
    kept = ids[: len(ids) - (output.finish_reason == "stop")]
    return engine.chat.decode(kept)


def raw_transformers(engine: Any, chunks: list[Chunk]) -> list[str]:
    return [c.text for result in engine.generate(chunks) for found in result for c in found]


# --- Ours against model.generate ---------------------------------------------------------------


def compare_plain(
    engine: Any, policy: Path, chunks: list[Chunk], size: Size, repeats: int
) -> dict[str, str]:
    """Tokens a second of ours and of model.generate on as many rows at a time, in file order."""
    check_greedy(policy, engine, chunks, size)
    tokens: dict[str, list[int]] = {"ours": [], "plain": []}
    slots = [0]
    hook = engine.model.model.register_forward_pre_hook(
        lambda _, args, kwargs: slots.__setitem__(0, slots[0] + decoded(kwargs)), with_kwargs=True
    )

    def ours() -> None:
        tokens["ours"].append(
            sum(c.tokens for result in engine.generate(chunks) for found in result for c in found)
        )

    def plain() -> None:
        tokens["plain"].append(sum(map(len, generate(engine, chunks, size, do_sample=True))))

    ours()
    hook.remove()
    padded = 1 - tokens["ours"].pop() / (slots[0] + size.prompts * size.samples)
    seconds = take_turns({"ours": ours, "plain": plain}, repeats, clock())
    per_token = {
        side: [s / n for s, n in zip(seconds[side], tokens[side], strict=True)] for side in tokens
    }
    found = row(
        f"transformers: ours, times a fixed-batch generate loop (padded share {padded:.1%})",
        ratio(per_token["plain"], per_token["ours"]),
        1 / float(np.median(per_token["ours"])),
        1 / float(np.median(per_token["plain"])),
    )
    return found


def decoded(kwargs: dict[str, Any]) -> int:
    """Rows of a forward pass that decodes; 0 for one that reads prompts."""
    rows, columns = kwargs["input_ids"].shape
    return rows if columns == 1 else 0


@torch.inference_mode()
def generate(
    engine: Any, chunks: list[Chunk], size: Size, *, do_sample: bool, limit: int | None = None
) -> list[list[int]]:
    """Tokens of every sample by model.generate, `rows` at a time, as they come in the file."""
    prompts = [r.prompt_ids for chunk in chunks for r in chunk for _ in r.seeds]
    pad = engine.chat.tokenizer.pad_token_id
    ends = set(engine.settings.end_tokens)
    found: list[list[int]] = []
    for start in range(0, len(prompts), size.rows):
        batch = prompts[start : start + size.rows]
        longest = max(map(len, batch))
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in batch], device=engine.device)
        mask = torch.tensor(
            [[0] * (longest - len(p)) + [1] * len(p) for p in batch], device=engine.device
        )
        output = engine.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=do_sample,
            temperature=1.0 if do_sample else None,
            top_k=0 if do_sample else None,
            max_new_tokens=limit or size.max_new_tokens,
        )
        for tokens in output[:, longest:].tolist():
            end = next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))
            found.append(tokens[:end])
    return found


def check_greedy(policy: Path, engine: Any, chunks: list[Chunk], size: Size) -> None:
    """Both give the same tokens where nothing is drawn."""
    some = [[Request(r.prompt_ids, r.seeds[:1]) for r in chunks[0][:4]]]
    greedy = load("transformers", policy, size, temperature=0.0, max_new_tokens=24)
    expected = [
        engine.chat.tokenizer.decode([t for t in ids if t not in engine.settings.end_tokens])
        for ids in generate(engine, some, size, do_sample=False, limit=24)
    ]
    found = raw_transformers(greedy, some)
    greedy.close()
    if [text.strip() for text in found] != [text.strip() for text in expected]:
        raise SystemExit("the transformers engine and model.generate differ greedily")


# --- Start-up ----------------------------------------------------------------------------------

#: Loads an engine as a script does; `cpu` and `wall` count from the start of the process.
START = """
import json, sys, time
from dpa.runtime.startup import script_starts
script_starts()
from dpa.generation.load import load_engine
name, policy, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
load_engine(name, policy, temperature=1.0, max_new_tokens=tokens, max_model_len=1024 + tokens,
            rows_per_batch=32)
with open("/proc/self/stat") as file:
    ticks = int(file.read().rpartition(")")[2].split()[19])
with open("/proc/uptime") as file:
    up = float(file.read().split()[0])
print(json.dumps({"cpu": time.process_time(), "wall": up - ticks / 100}), flush=True)
"""


def start_ups(name: str, policy: Path, size: Size) -> dict[str, str]:
    """Seconds until an engine is ready, in fresh processes: imports, and the model."""
    command = [sys.executable, "-c", START, name, str(policy), str(size.max_new_tokens)]
    found = []
    for _ in range(START_UPS):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    cpu, wall = (sorted(one[key] for one in found) for key in ("cpu", "wall"))
    return {
        "what": f"{name}: start-up, CPU seconds (wall: {wall[0]:.1f}-{wall[-1]:.1f} s)",
        "ratio": "",
        "ours": f"{cpu[len(cpu) // 2]:.1f} s ({cpu[0]:.1f}-{cpu[-1]:.1f})",
        "the other": "",
    }


def row(what: str, found: Ratio, ours: float, other: float) -> dict[str, str]:
    return {
        "what": what,
        "ratio": str(found),
        "ours": f"{ours:,.0f} tokens/s",
        "the other": f"{other:,.0f} tokens/s",
    }


def clock() -> Callable[[], float] | None:
    return None if torch.cuda.is_available() else time.process_time


if __name__ == "__main__":
    app()
