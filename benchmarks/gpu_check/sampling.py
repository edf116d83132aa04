"""Part 5: the transformers engine against `model.generate`, on a model of a billion parameters."""

import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from benchmarks.gpu_check.rows import device, is_small, on_gpu, record, seconds_of
from benchmarks.gpu_check.shapes import built, llama
from benchmarks.lengths import fixed
from benchmarks.models import BILLION, make_tokenizer
from dpa.generation.engine import Request
from dpa.generation.load import load_engine
from dpa.models import load_model

NEW_TOKENS = 8 if is_small() else 256
PROMPT_WORDS = 10 if is_small() else 150


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        policy = write_policy(Path(name))
        for rows in (4,) if is_small() else (128, 256):
            ours = engine_seconds(policy, rows)
            plain = generate_seconds(policy, rows)
            record(f"{rows} rows: sampled", rows * NEW_TOKENS / ours, "tokens/s")
            record(f"{rows} rows: against model.generate", plain / ours, "x")


def write_policy(folder: Path) -> Path:
    """A random policy that practically never ends a response: all have the full length."""
    tokenizer = make_tokenizer()
    model = built(AutoModelForCausalLM, llama(BILLION), torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompts(rows: int) -> list[str]:
    """One prompt for every 16 rows, as in the pipeline."""
    return [prompt for prompt, _ in fixed(-(-rows // 16), 1, PROMPT_WORDS, 1)]


def engine_seconds(policy: Path, rows: int) -> float:
    engine = load_engine(
        "transformers",
        policy,
        temperature=1.0,
        max_new_tokens=NEW_TOKENS,
        max_model_len=2048,
        rows_per_batch=rows,
    )
    each = rows // len(prompts(rows))
    chunk = [
        Request(engine.chat.prompt_ids([{"role": "user", "content": text}]), [*range(each)])
        for text in prompts(rows)
    ]
    seconds = seconds_of(lambda: list(engine.generate([chunk])), 1, 1)
    if on_gpu():
        record(f"{rows} rows: memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
    engine.close()
    return seconds


def generate_seconds(policy: Path, rows: int) -> float:
    """A padded batch by transformers' own loop."""
    tokenizer = make_tokenizer()
    tokenizer.padding_side = "left"
    dtype = torch.bfloat16 if on_gpu() else torch.float32
    model = load_model(AutoModelForCausalLM, policy, dtype=dtype, device_map=device())
    texts = prompts(rows)
    each = rows // len(texts)
    chat = [[{"role": "user", "content": text}] for text in texts for _ in range(each)]
    batch = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    with torch.inference_mode():
        return seconds_of(
            lambda: model.generate(
                **batch,
                do_sample=True,
                min_new_tokens=NEW_TOKENS,
                max_new_tokens=NEW_TOKENS,
            ),
            1,
            1,
        )


if __name__ == "__main__":
    main()
