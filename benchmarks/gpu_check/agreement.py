"""Part 2: the same trainings, scores and responses on the card and on the CPU.

Each side is a process of its own, the CPU's without the card in sight. In float32 the two differ by
rounding; scores in the card's bfloat16 by up to a point of 100.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_check.rows import on_gpu, record
from benchmarks.gpu_check.shapes import TINY
from benchmarks.lengths import Conversation, fixed
from benchmarks.models import make_tokenizer, make_training_job

#: Largest difference of weights that were trained in float32, and of scores.
WEIGHTS, SCORES, SCORES_IN_BFLOAT16 = 1e-4, 0.01, 1.0
#: A Mistral with a window that is shorter than the inputs, and others that differ in attention.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 32},
    "Gemma": {"head_dim": 16},
    "Qwen2": {},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = {}
        for side, visible in (("cpu", {"CUDA_VISIBLE_DEVICES": ""}), ("card", {})):
            (folder / side).mkdir()
            command = [sys.executable, "-m", __spec__.name, "--side", str(folder / side)]
            subprocess.run(command, env=os.environ | visible, check=True, stdout=subprocess.DEVNULL)
            sides[side] = folder / side
        compare(sides["cpu"], sides["card"])


def compare(cpu: Path, card: Path) -> None:
    """Record by how much the two sides differ."""
    from safetensors.numpy import load_file

    for name in ("sft", "packed", "dpo", "reward_model"):
        expected, found = (load_file(side / name / "model.safetensors") for side in (cpu, card))
        worst = max(float(np.abs(expected[key] - found[key]).max()) for key in expected)
        record(f"{name}: largest difference of weights", worst, at_most=WEIGHTS)
        start = load_file(
            cpu / ("base" if name == "reward_model" else "policy") / "model.safetensors"
        )
        moved = [
            (expected[key] - start[key], found[key] - expected[key])
            for key in start
            if key in expected
        ]
        size, error = (np.sqrt(sum(float(np.square(x[i]).sum()) for x in moved)) for i in (0, 1))
        record(f"{name}: difference, of what was learnt", 100 * error / size, "%", at_most=1)
    theirs, ours = (json.loads((side / "found.json").read_text()) for side in (cpu, card))
    for name in ARCHITECTURES:
        for kind, limit in (("scores", SCORES), ("scores in bfloat16", SCORES_IN_BFLOAT16)):
            key = f"{name}: {kind}"
            if key in ours:
                reference = np.array(theirs[f"{name}: scores"])
                worst = float(np.abs(np.array(ours[key]) - reference).max())
                record(f"{key}, largest difference", worst, "points", at_most=limit)
    same = float(np.mean([a == b for a, b in zip(theirs["greedy"], ours["greedy"], strict=True)]))
    record("greedy responses that are the same", 100 * same, "%", at_least=100)


# --- One side ----------------------------------------------------------------------------------


def compute(folder: Path) -> None:
    """Everything that is compared, on the device that this process sees."""
    policy = make_policy(folder / "policy", "Llama")
    train(folder, policy)
    found: dict[str, Any] = {"greedy": greedy(policy)}
    for name in ARCHITECTURES:
        for dtype in (torch.float32, torch.bfloat16) if on_gpu() else (torch.float32,):
            kind = "scores" if dtype == torch.float32 else "scores in bfloat16"
            found[f"{name}: {kind}"] = scores(name, dtype).tolist()
    (folder / "found.json").write_text(json.dumps(found))


def conversations() -> list[Conversation]:
    return fixed(4, 6, 30, 25, seed=3)


def make_config(name: str, **more: Any) -> Any:
    import transformers

    tokenizer = make_tokenizer()
    kind = getattr(transformers, f"{name}Config")
    return kind(
        **TINY | ARCHITECTURES[name] | more,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def make_policy(folder: Path, name: str) -> Path:
    """A random policy; made on the CPU, for the card draws other numbers."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(make_config(name), dtype=torch.float32)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def train(folder: Path, policy: Path) -> None:
    """Fine-tuning plain and packed, DPO, and a reward model, each for some steps."""
    from dpa.artefacts.row_counts import RowCounts
    from dpa.methods.dpo import PairTraining
    from dpa.methods.sft import Finetuning, tokenise_conversations
    from dpa.models import ModelRef
    from dpa.records import Rating
    from dpa.reward.train import RewardTraining
    from dpa.text.prompts import prompt_id
    from dpa.text.tokenization import ChatTokenizer
    from dpa.training.trainer import run_training

    start, chat = ModelRef.of(policy), ChatTokenizer(make_tokenizer())
    turns = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        for prompt, texts in conversations()
        for text in texts
    ]
    for name, packing in (("sft", False), ("packed", True)):
        rows = tokenise_conversations(chat, turns, 256, RowCounts())
        job = make_job(start, folder / name, packing)
        run_training(Finetuning(job, chat, rows, RowCounts()))
    pairs = [(two[:1], two[1]["content"], two[1]["content"][:40]) for two in turns]
    run_training(PairTraining(make_job(start, folder / "dpo"), pairs, 0.1, RowCounts()))
    ratings = [
        Rating(
            prompt_id=prompt_id(prompt),
            prompt=prompt,
            response=text,
            dataset="check",
            split="train",
            attributes={"a": float(len(text) % 101), "b": float(len(text) % 7 * 10)},
        )
        for prompt, texts in conversations()
        for text in texts
    ]
    (folder / "base").symlink_to(folder / "policy")
    training = RewardTraining(
        make_job(ModelRef.of(folder / "base"), folder / "reward_model"),
        ratings,
        attributes=["a", "b"],
        lm_loss_weight=0.1,
        token_dropout=0.0,
    )
    run_training(training)


def make_job(start: Any, output: Path, packing: bool = False) -> Any:
    return make_training_job(
        start,
        output,
        trainer={
            "per_device_batch_size": 4,
            "bf16": False,
            "gradient_checkpointing": False,
            "packing": packing,
        },
        schedule={"learning_rate": 1e-3, "epochs": 2, "batch_size": 4, "max_length": 256},
    )


def scores(name: str, dtype: torch.dtype) -> np.ndarray:
    """(responses, outputs) of a random reward model."""
    from transformers import AutoModelForSequenceClassification

    from dpa.reward.inputs import RewardInputs
    from dpa.reward.transformers_scorer import TransformersScorer

    torch.manual_seed(0)
    config = make_config(name, num_labels=3)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        model.score.weight.mul_(100)  # scores of a size as on 0-100
    model = model.to("cuda" if on_gpu() else "cpu", dtype)
    inputs = RewardInputs(make_tokenizer(), model.config)
    scorer = TransformersScorer(model, inputs, ["a", "b", "c"], 4096)
    return np.concatenate(scorer.score_chunk(conversations()))


def greedy(policy: Path) -> list[str]:
    from dpa.generation.engine import Request
    from dpa.generation.load import load_engine

    engine = load_engine(
        "transformers",
        policy,
        temperature=0.0,
        max_new_tokens=24,
        max_model_len=256,
        rows_per_batch=4,
        dtype="float32",
    )
    chunk = [
        Request(engine.chat.prompt_ids([{"role": "user", "content": prompt}]), [0])
        for prompt, _ in conversations()
    ]
    return [one.text for result in engine.generate([chunk]) for group in result for one in group]


if __name__ == "__main__":
    if "--side" in sys.argv:
        compute(Path(sys.argv[-1]))
    else:
        main()
