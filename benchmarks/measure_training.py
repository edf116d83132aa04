"""Fine-tuning: what packing gains, and what our code costs over bare TRL.

    python -m benchmarks.measure_training

Useful tokens in packed rows of 4,096, of the real distribution of lengths. Then dpa.methods.sft's
Finetuning on the same tokenised rows as TRL's SFTTrainer with the same arguments, in turns: packed
(the difference is our code, and on a CPU our loss) and unpacked, padded to the longest of a batch
(the difference is packing). Seconds are those of `train()`. First the mean losses of one step over
all rows are compared. Peak memory is that of processes of their own.
"""

import json
import re
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

from benchmarks.harness import QUICK, REPEATS, demand, print_json, publish, ratio, take_turns
from benchmarks.lengths import conversations, source
from benchmarks.models import llama_config, make_tokenizer, make_training_job, single_thread
from dpa.artefacts.row_counts import RowCounts
from dpa.methods.sft import Finetuning, tokenise_conversations
from dpa.text.tokenization import ChatTokenizer
from dpa.training.trainer import TrainingJob, run_training, trainer_arguments

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

COMMAND = "python -m benchmarks.measure_training"
CONTEXT = 4096
#: Rows that are packed to count useful tokens, and rows that are trained on.
COUNTED, TRAINED = 3000, 64
#: Sequences of a step. Packed ones are full, those of unpacked rows are not.
PACKED_BATCH, UNPACKED_BATCH = 2, 8

#: Of --quick, with a margin for noise.
FLOOR_USEFUL, FLOOR_OVERHEAD = 0.97, 0.85


@app.command()
def main(
    quick: Annotated[bool, QUICK] = False,
    repeats: Annotated[int, REPEATS] = 3,
    side: Annotated[str | None, typer.Option(help="Only train this side; print memory.")] = None,
) -> None:
    """Measure packing, overhead and memory, and publish them."""
    gpu = torch.cuda.is_available()
    if not gpu:
        single_thread()
    count, length = (15, 512) if quick else (TRAINED, CONTEXT if gpu else 1024)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = tokenised(count, length)
        sides = trainings(rows, length, folder, {"num_hidden_layers": 2} if quick else {})
        if quick:
            del sides["TRL, unpacked"]
        if side is not None:
            sides[side]()
            peak = torch.cuda.max_memory_allocated() if gpu else 0
            print_json(
                rss_mib=peak_resident(),
                gpu_mib=peak / 2**20,
            )
            return
        useful, packed = useful_share(tokenised(300 if quick else COUNTED, CONTEXT))
        losses = {name: train() for name, train in sides.items()}  # also warms up
        if not np.allclose(losses["ours"], losses["TRL, packed"], rtol=0.02):
            raise SystemExit(f"the mean losses differ: {losses}")
        seconds = take_turns(sides, 3 if quick else repeats, TrainingClock())
    overhead = ratio(seconds["TRL, packed"], seconds["ours"])
    if quick:
        demand("training: useful tokens of packed rows", useful, FLOOR_USEFUL)
        demand("training: bare TRL's time as a share of ours", overhead.median, FLOOR_OVERHEAD)
        return
    packing = ratio(seconds["TRL, unpacked"], seconds["ours"])
    tokens = sum(len(row["input_ids"]) for row in rows)
    table = []
    for name, found in (("ours", None), ("TRL, packed", overhead), ("TRL, unpacked", packing)):
        memory = peak_memory(name)
        table.append(
            {
                "side": name,
                "tokens/s": f"{tokens / float(np.median(seconds[name])):,.0f}",
                "time, over ours": "" if found is None else str(found),
                "peak memory": f"{memory['rss_mib']:,.0f} MiB"
                + (f", {memory['gpu_mib']:,.0f} MiB on the GPU" if gpu else ""),
            }
        )
    notes = (
        f"Packed into rows of {CONTEXT:,}, {COUNTED:,} conversations ({source()}) fill "
        f"{100 * useful:.2f}% of {packed} rows with useful tokens. Below: {count} conversations, "
        f"{tokens:,} tokens, in rows of {length:,}; {PACKED_BATCH} packed or {UNPACKED_BATCH} "
        f"unpacked sequences a step; "
        + ("the wall's clock." if gpu else "one thread, CPU seconds. Figures for a GPU, ")
        + ("" if gpu else "where packing gains most, are unmeasured: no GPU was there.")
    )
    publish("measure_training", COMMAND, table, notes)


def peak_resident() -> float:
    """MiB. Not ru_maxrss, which begins with what the parent process had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def tokenised(count: int, length: int) -> list[dict[str, np.ndarray]]:
    """Rows of single-turn conversations, as dpa.methods.sft makes them."""
    found = conversations(-(-count // 5), 5, seed=11)
    turns = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        for prompt, texts in found
        for text in texts
    ]
    return tokenise_conversations(
        ChatTokenizer(make_tokenizer()), turns[:count], length, RowCounts()
    )


def useful_share(rows: list[dict[str, np.ndarray]]) -> tuple[float, int]:
    """Share of useful tokens in TRL's packed rows of the paper's context, and their number."""
    from datasets import Dataset
    from trl import pack_dataset

    packed = pack_dataset(Dataset.from_list(rows), CONTEXT, "bfd")
    tokens = sum(len(ids) for ids in packed["input_ids"])
    if tokens != sum(len(row["input_ids"]) for row in rows):
        raise SystemExit("packing lost tokens")
    return tokens / (CONTEXT * len(packed)), len(packed)


def trainings(
    rows: list[dict[str, np.ndarray]], length: int, folder: Path, shape: dict[str, int]
) -> dict[str, Callable[[], Any]]:
    """Each side as a function that trains one epoch and returns its mean loss per step.

    With a learning rate so small that weights stay: mean losses can then be compared, whatever the
    order of the rows. `shape` is what differs from benchmarks.models' configuration.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    gpu = torch.cuda.is_available()
    trainer = {"per_device_batch_size": PACKED_BATCH, "bf16": gpu, "gradient_checkpointing": gpu}
    schedule = {"learning_rate": 1e-9, "batch_size": PACKED_BATCH, "max_length": length}
    tokenizer = make_tokenizer()

    def model() -> Any:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(llama_config(**shape))

    def job(name: str) -> TrainingJob:
        return make_training_job(model(), folder / name, trainer=trainer, schedule=schedule)

    def ours() -> float:
        run_training(Finetuning(job("ours"), ChatTokenizer(tokenizer), rows, RowCounts()))
        return json.loads((folder / "ours.meta.json").read_text())["train_loss"]

    def bare(packing: bool) -> float:
        plain = job("bare")
        arguments = trainer_arguments(plain, plain.output)
        arguments["per_device_train_batch_size"] = PACKED_BATCH if packing else UNPACKED_BATCH
        trainer = SFTTrainer(
            model=plain.start,
            args=SFTConfig(
                **arguments,
                max_length=length,
                packing=packing,
                packing_strategy="bfd",
                completion_only_loss=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        return trainer.train().training_loss

    return {
        "ours": ours,
        "TRL, packed": lambda: bare(True),
        "TRL, unpacked": lambda: bare(False),
    }


class TrainingClock:
    """Seconds spent in a Trainer's train(); making models, and saving them, leave it standing."""

    def __init__(self) -> None:
        from trl import SFTTrainer

        self.total = 0.0
        clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        real = SFTTrainer.train

        def train(*args: Any, **options: Any) -> Any:
            start = clock()
            result = real(*args, **options)
            self.total += clock() - start
            return result

        SFTTrainer.train = train  # type: ignore[method-assign]

    def __call__(self) -> float:
        return self.total


def peak_memory(side: str) -> dict[str, float]:
    """Of a process that trains one side only."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure_training", "--side", side],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    app()
