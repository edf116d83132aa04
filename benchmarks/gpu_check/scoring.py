"""Part 3: a reward model of the paper's shape scores, against the two plain ways."""

import time
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from benchmarks.gpu_check.rows import (
    is_small,
    on_gpu,
    product_rate,
    record,
    seconds_of,
    synchronise,
)
from benchmarks.gpu_check.shapes import SEVEN_BILLION, built, inner_weights, llama
from benchmarks.lengths import Conversation, fixed
from benchmarks.measure_scoring import token_counts
from benchmarks.models import make_tokenizer
from dpa.reward.inputs import RewardInputs
from dpa.reward.transformers_scorer import TransformersScorer
from dpa.text.prompts import reward_input

OUTPUTS = 10
#: Points of 100 by which bfloat16 may move a score.
TOLERANCE = 1.0


def mixes() -> dict[str, list[Conversation]]:
    """Conversations by name; a word is about a token."""
    if is_small():
        return {"2 prompts x 4 responses": fixed(2, 4, 20, 10)}
    return {
        "2 prompts x 80 responses of 230 tokens": fixed(2, 80, 165, 230),
        "16 prompts x 4 responses of 230 tokens": fixed(16, 4, 165, 230, seed=1),
        "32 lone responses of 230 tokens": fixed(32, 1, 165, 230, seed=2),
    }


def main() -> None:
    config = llama(SEVEN_BILLION, num_labels=OUTPUTS)
    model = built(AutoModelForSequenceClassification, config, torch.bfloat16)
    names = [f"output-{i}" for i in range(OUTPUTS)]
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 4096
    rate = product_rate(256 if is_small() else 8192)
    weights = inner_weights(model)
    plain = Plain(model, tokenizer)
    # The plain ways first: the scorer changes the model's attention.
    found = {name: plain.measure(groups) for name, groups in mixes().items()}
    scorer = TransformersScorer(model, RewardInputs(tokenizer, model.config), names, 65536)
    for name, groups in mixes().items():
        expected, one, padded = found[name]
        scores = np.concatenate(scorer.score_chunk(groups))
        record(
            f"{name}: largest difference",
            float(np.abs(scores - expected).max()),
            "points",
            at_most=TOLERANCE,
        )
        seconds = seconds_of(lambda groups=groups: scorer.score_chunk(groups), 3, 1)
        whole, needed = token_counts(scorer, groups)
        record(f"{name}: tokens scored", whole / seconds, "tokens/s")
        record(f"{name}: against one at a time", one / seconds, "x")
        record(f"{name}: against padded batches of 16", padded / seconds, "x")
        share = 100 * 2 * weights * needed / seconds / rate
        goal = 55 if on_gpu() and not is_small() else None
        record(f"{name}: arithmetic, of a large product's", share, "%", at_least=goal)
        if on_gpu():
            busy = 100 * busy_share(lambda groups=groups: scorer.score_chunk(groups))
            record(f"{name}: card busy", busy, "%", at_least=90)
            record(f"{name}: memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


class Plain:
    """A row, or a padded batch of 16, at a time."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    def measure(self, groups: list[Conversation]) -> tuple[np.ndarray, float, float]:
        """(scores one at a time, its seconds, seconds of padded batches)."""
        texts = [reward_input(prompt, text) for prompt, texts in groups for text in texts]
        scores = self.score(texts, 1)
        one = seconds_of(lambda: self.score(texts, 1), 1, 0)
        return scores, one, seconds_of(lambda: self.score(texts, 16), 1, 1)

    @torch.inference_mode()
    def score(self, texts: list[str], batch: int) -> np.ndarray:
        scores = []
        for start in range(0, len(texts), batch):
            rows = self.tokenizer(texts[start : start + batch], padding=True, return_tensors="pt")
            scores.append(self.model(**rows.to(self.model.device)).logits.float().cpu().numpy())
        return np.concatenate(scores)


def busy_share(work: Any) -> float:
    """Share of a call's time in which the card runs a kernel."""
    from torch.profiler import ProfilerActivity, profile

    synchronise()
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        work()
        synchronise()
        wall = time.perf_counter() - start
    kernels = sum(event.self_device_time_total for event in profiler.key_averages())
    return kernels / 1e6 / wall


if __name__ == "__main__":
    main()
