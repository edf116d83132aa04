"""Reward scoring: ours against one input at a time, padded batches of 16, and vLLM's pooling.

    python -m benchmarks.measure_scoring

On several mixes of lengths, all sides in turns on the same inputs, on one core by the CPU's clock
(on a GPU: a model of a billion parameters, by the wall's). Scores are compared before anything is
timed. The vLLM side runs where vLLM is installed; it shares this process. `bound` is by how much
sharing prefixes, and scoring equal responses once, lowers the number of tokens.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.harness import QUICK, REPEATS, demand, publish, ratio, take_turns
from benchmarks.lengths import Conversation, conversations, fixed, source
from benchmarks.models import make_reward_model, single_thread
from dpa.errors import InputError
from dpa.reward.load import load_scorer
from dpa.reward.transformers_scorer import TransformersScorer
from dpa.text.prompts import reward_input

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COMMAND = "python -m benchmarks.measure_scoring"
TOKENS_PER_BATCH = 65536
#: On a CPU: wide enough that, as in models of use, layers cost more than what attention does with
#: a long prompt, which every response does for itself and the number of tokens does not show.
WIDER = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}
#: Points of 100 by which sides may differ: rounding of stored scores, and of bfloat16 on a GPU.
TOLERANCE = 0.002
TOLERANCE_ON_GPU = 1.0

#: Of --quick, with a margin for noise: share of the bound, and times as fast as the others.
FLOOR_SHARE, FLOOR = 0.8, 0.9


def mixes(quick: bool) -> dict[str, list[Conversation]]:
    """Conversations by name. A word is a token, the reward prompt adds some 15."""
    if quick:
        return {"180-token prompts, 230-token responses": fixed(1, 8, 165, 230)}
    lone = conversations(16, 1, seed=2)
    return {
        "180-token prompts, 230-token responses": fixed(2, 16, 165, 230),
        "1,000-token prompts, 230-token responses": fixed(1, 12, 985, 230),
        "short responses (10 tokens)": fixed(3, 16, 165, 8),
        "16 equal responses": [(p, texts[:1] * 16) for p, texts in fixed(8, 1, 165, 230)],
        "one response per prompt, real lengths": lone,
        "16 responses per prompt, real lengths": conversations(2, 16, seed=1),
    }


class Plain:
    """The common snippets: plain transformers, a row or a padded batch at a time."""

    def __init__(self, path: str, dtype: torch.dtype, device: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype)
        self.model = model.to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)

    @torch.no_grad()
    def score(self, groups: list[Conversation], batch: int) -> np.ndarray:
        texts = [reward_input(prompt, text) for prompt, texts in groups for text in texts]
        scores = []
        for start in range(0, len(texts), batch):
            inputs = self.tokenizer(
                texts[start : start + batch], padding=batch > 1, return_tensors="pt"
            ).to(self.model.device)
            scores.append(self.model(**inputs).logits.float().cpu().numpy())
        return np.concatenate(scores)


def token_counts(model: TransformersScorer, groups: list[Conversation]) -> tuple[int, int]:
    """Tokens of all inputs, and of those that have to be computed."""
    whole = needed = 0
    for prompt, texts in groups:
        rows = model.inputs.tokenise((prompt, text) for text in texts)
        whole += sum(len(ids) for ids, _ in rows)
        chunk = model._tokenise([(prompt, texts)])
        for family in model._families(chunk.rows, chunk.places):
            needed += len(family.prefix) + sum(map(len, family.rests))
    return whole, needed


@app.command()
def main(
    quick: Annotated[bool, QUICK] = False,
    repeats: Annotated[int, REPEATS] = 5,
) -> None:
    """Score every mix on all sides and publish the ratios."""
    gpu = torch.cuda.is_available()
    if not gpu:
        single_thread()
    with tempfile.TemporaryDirectory() as folder:
        path = make_reward_model(Path(folder), **({} if gpu else WIDER))
        ours: Any = load_scorer(path, tokens_per_batch=TOKENS_PER_BATCH)
        plain = Plain(path, ours.model.dtype, "cuda" if gpu else "cpu")
        vllm = None if quick else vllm_scorer(path)
        rows = []
        for name, groups in mixes(quick).items():
            rows.append(measure(name, groups, ours, plain, vllm, 3 if quick else repeats))
            print(rows[-1], flush=True)
            share, slowest = (float(rows[-1][key].split()[0].rstrip("x%")) for key in GUARDED)
            if quick:
                demand("scoring: share of the token bound", share / 100, FLOOR_SHARE)
                demand("scoring: against one at a time", slowest, FLOOR)
        if quick:
            return
        notes = (
            f"Lengths: {source()}. Times as fast as the other side (range over {repeats} rounds), "
            f"{'by the wall clock' if gpu else 'one thread, CPU seconds'}; largest difference of "
            f"scores from one at a time at most {TOLERANCE_ON_GPU if gpu else TOLERANCE} points."
            + ("" if gpu else " No GPU was there: the goals for one are unmeasured.")
            + ("" if vllm else " vLLM is not installed in this environment.")
        )
        if gpu:
            rows[0]["matmul rate"] = matmul_share(ours, mixes(False), rows[0])
        publish("measure_scoring", COMMAND, rows, notes)
        if vllm:
            vllm.close()


GUARDED = ("share of bound", "one at a time")


def vllm_scorer(path: str) -> Any:
    """The other engine, or None where it is not installed."""
    try:
        return load_scorer(path, "vllm", tokens_per_batch=TOKENS_PER_BATCH // 8)
    except InputError as error:
        print(f"skipped: {error}", flush=True)
        return None


def measure(
    name: str,
    groups: list[Conversation],
    ours: TransformersScorer,
    plain: Plain,
    vllm: Any,
    repeats: int,
) -> dict[str, str]:
    """A row of the table: the mix, what bounds the gain, and the ratios."""
    gpu = torch.cuda.is_available()
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: np.concatenate(list(ours.score_groups(groups))),
        "one at a time": lambda: plain.score(groups, 1),
        "batches of 16": lambda: plain.score(groups, 16),
    }
    if vllm:
        sides["vLLM pooling"] = lambda: cold(vllm, groups)
    expected = sides["one at a time"]()
    tolerance = TOLERANCE_ON_GPU if gpu else TOLERANCE
    for side, score in sides.items():
        worst = float(np.abs(score() - expected).max())
        if not worst <= tolerance:
            raise SystemExit(f"{name}: {side} differs by {worst} from one at a time")
    whole, needed = token_counts(ours, groups)
    seconds = take_turns(sides, repeats, None if gpu else time.process_time)
    one = ratio(seconds["one at a time"], seconds["ours"])
    bound = whole / needed
    row = {
        "mix": name,
        "responses": str(sum(len(texts) for _, texts in groups)),
        "tokens": f"{whole:,}",
        "bound": f"{bound:.2f}x",
        "share of bound": f"{100 * one.median / bound:.0f}%",
        "tokens/s": f"{whole / float(np.median(seconds['ours'])):,.0f}",
    }
    for side in ("one at a time", "batches of 16", "vLLM pooling"):
        row[side] = str(ratio(seconds[side], seconds["ours"])) if side in seconds else "not run"
    return row


def cold(vllm: Any, groups: list[Conversation]) -> np.ndarray:
    """vLLM's scores, with nothing in its prefix cache from the round before."""
    vllm.llm.reset_prefix_cache()
    return np.concatenate(list(vllm.score_groups(groups)))


def matmul_share(ours: TransformersScorer, found: dict[str, list[Conversation]], row: dict) -> str:
    """Arithmetic of the first mix a second, as a share of what a large dense product reaches."""
    weights = sum(p.numel() for n, p in ours.model.named_parameters() if "embed_tokens" not in n)
    groups = next(iter(found.values()))
    _, needed = token_counts(ours, groups)
    seconds = []
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for turn in range(8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        middle = time.perf_counter()
        list(ours.score_groups(groups))
        if turn > 2:
            seconds.append((middle - start, time.perf_counter() - middle))
    dense = 2 * 8192**3 / float(np.median([s for s, _ in seconds]))
    reached = 2 * weights * needed / float(np.median([s for _, s in seconds]))
    return f"{reached / 1e12:.0f} of {dense / 1e12:.0f} TFLOP/s ({100 * reached / dense:.0f}%)"


if __name__ == "__main__":
    app()
