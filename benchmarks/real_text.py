"""A small pretrained model on real text, without Snakemake.

    python -m benchmarks.real_text run --model smollm2-135m-instruct \
        --train train.parquet --validation validation.parquet --output results/real_text

The tables have the columns instruction, output and gpt4_preference; docs/real-data.md makes them
and the model's folder. Commands:

- `run`: all pieces of the next two that are not there yet, and the tables of docs/real-text.md;
- `condition`: fine-tuning on original responses, each the best of its prompt's under a direction,
  then the true lengths of the policy's responses to unseen prompts, by direction;
- `reward-model`: a reward model from the same model, ranked on the validation table;
- `precision`: bfloat16 against float32 on this CPU in sampling, scoring and training: speed, and
  how far results differ.

`condition` and `reward-model` are pieces: one JSON file each in the output folder, named for what
varies. What is there is not done again, and a training that was killed resumes from its checkpoint.
`table` publishes what is there in docs/real-text.md, which has what was found.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import typer

from benchmarks.harness import cpu_model, gpus, publish
from dpa.directions import Direction, evaluation_directions, sample_direction, scalar_reward
from dpa.errors import InputError
from dpa.evaluation.metrics import spearman
from dpa.text.prompts import direction_system_prompt, messages, prompt_id

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

OBJECTIVES = ("helpfulness", "verbosity")
ARC = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
#: Longest prompt and response, in tokens: what two CPU cores can learn from in an hour.
PROMPT_TOKENS, RESPONSE_TOKENS = 48, 60
#: Of the evaluation: prompts, directions, and where responses end.
PROMPTS, DIRECTIONS, MOST_TOKENS = 24, 10, 80
CHUNK = 4
ATTRIBUTES = ("gpt4-preference", "length")
#: Of `run`: rows of the curve, the last of them when all else is there; and what else varies, at
#: VARIED rows.
ROWS, VARIED = (600, 2_000, 6_000, 20_000, 34_477), 6_000
VARIANTS: tuple[dict[str, Any], ...] = (
    {"wording": "word"},
    {"wording": "digit"},
    {"learning_rate": 5e-5},
    {"learning_rate": 1e-3},
    {"epochs": 4},
    {"lora_rank": 16, "learning_rate": 1e-3},
)
DOCUMENT = Path(__file__).parents[1] / "docs/real-text.md"


# --- How a direction is written -----------------------------------------------------------------


def as_in_the_paper(direction: Direction) -> str:
    return direction_system_prompt(OBJECTIVES, direction)


def in_one_digit(direction: Direction) -> str:
    """The weights in tenths, without signs: each is one token."""
    weights = [min(9, round(10 * abs(v))) for v in direction]
    text = as_in_the_paper(direction).rsplit("=", 1)[0]
    return f"{text}= helpfulness {weights[0]}, brevity {weights[1]}"


def with_a_word(direction: Direction) -> str:
    """The paper's, and a word for the fifth of the arc."""
    words = ("very long", "long", "medium", "short", "very short")
    place = -np.degrees(np.arctan2(direction[1], direction[0])) / 45
    return f"{as_in_the_paper(direction)} ({words[min(4, int(5 * place))]})"


WORDINGS: dict[str, Callable[[Direction], str]] = {
    "paper": as_in_the_paper,
    "digit": in_one_digit,
    "word": with_a_word,
}


# --- Data ---------------------------------------------------------------------------------------


def read_table(path: Path) -> pd.DataFrame:
    """Responses with their prompt's id and both attributes as ranks on 0-100."""
    table = pd.read_parquet(path, columns=["instruction", "output", "gpt4_preference"])
    table = table[table.output.str.strip().astype(bool)]
    ids = {text: prompt_id(text) for text in table.instruction.unique()}
    table["prompt"] = table.instruction.map(ids)
    table["length"] = table.output.str.len()
    for name, column in zip(ATTRIBUTES, ("gpt4_preference", "length"), strict=True):
        table[name] = 100 * (table[column].rank() - 0.5) / len(table)
    return table.sort_values("prompt", kind="stable").reset_index(drop=True)


def short_rows(table: pd.DataFrame, tokenizer: Any) -> pd.DataFrame:
    """The rows whose prompt and response are short; ranks are taken among them."""
    texts = table.instruction.unique().tolist()
    counts = dict(zip(texts, map(len, tokenizer(texts)["input_ids"]), strict=True))
    table = table[table.instruction.map(counts) <= PROMPT_TOKENS]
    table = table[table.length <= 12 * RESPONSE_TOKENS]  # no token is longer on average
    tokens = tokenizer(table.output.tolist())["input_ids"]
    table = table[[len(ids) <= RESPONSE_TOKENS for ids in tokens]].copy()
    for name in ATTRIBUTES:
        table[name] = 100 * (table[name].rank() - 0.5) / len(table)
    return table


class Chosen(NamedTuple):
    """An original response, the best of its prompt's under a direction."""

    prompt: str
    direction: Direction
    response: str


def choose(table: pd.DataFrame, rows: int) -> list[Chosen]:
    """The first `rows` of: each prompt's best under its first direction, then the second, ..."""
    by_prompt = [group for _, group in table.groupby("prompt") if len(group) > 1]
    if not by_prompt:
        raise InputError("no prompt has two short responses to choose between")
    chosen: list[Chosen] = []
    index = 0
    while len(chosen) < rows:
        for group in by_prompt:
            v = sample_direction(ARC, 0, 1, group.prompt.iloc[0], index)
            rewards = group[list(ATTRIBUTES)].to_numpy()
            best = int(np.argmax([scalar_reward(v, r) for r in rewards.tolist()]))
            chosen.append(Chosen(group.instruction.iloc[0], v, group.output.iloc[best]))
        index += 1
    return chosen[:rows]


def angle(direction: Direction) -> float:
    """Degrees from (1, 0) down."""
    return float(-np.degrees(np.arctan2(direction[1], direction[0])))


# --- Pieces -------------------------------------------------------------------------------------


def piece(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a piece found, computed where it is not there yet."""
    if path.exists():
        return json.loads(path.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    wall, cpu = time.time(), time.process_time()
    found = compute() | {
        "seconds": round(time.time() - wall),
        "cpu_seconds": round(time.process_time() - cpu),
        "load": os.getloadavg()[0],
        "processor": next(gpus(), cpu_model()),
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1))
    part.replace(path)
    return found


def training_job(
    start: Path, output: Path, learning_rate: float, epochs: float, **more: Any
) -> Any:
    from benchmarks.models import make_training_job
    from dpa.models import ModelRef

    trainer = {
        "bf16": more.get("bf16", True),
        "packing": False,
        "gradient_checkpointing": False,
        "per_device_batch_size": 16,
        "save_steps": 40,
        "lora": more.get("lora"),
    }
    schedule = {
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": 16,
        "warmup_steps": 5,
        "lr_scheduler": more.get("lr_scheduler", "cosine"),
        "max_length": more.get("max_length", 320),
    }
    return make_training_job(ModelRef(str(start)), output, trainer=trainer, schedule=schedule)


MODEL = Annotated[Path, typer.Option(help="Folder of the pretrained chat model.")]
TABLE = Annotated[Path, typer.Option(help="Responses with GPT-4's preference.")]
OUTPUT = Annotated[Path, typer.Option(help="Folder of the pieces.")]


@app.command()
def condition(
    model: MODEL,
    train: TABLE,
    validation: TABLE,
    output: OUTPUT,
    rows: int = 600,
    wording: str = "paper",
    learning_rate: float = 2e-4,
    epochs: float = 2,
    lora_rank: Annotated[int, typer.Option(help="0 trains all weights.")] = 0,
) -> None:
    """Fine-tune on responses chosen by direction, and measure true lengths by direction."""
    from dpa.methods.sft import finetune_conversations
    from dpa.models import load_tokenizer

    adapters = f"-lora{lora_rank}" if lora_rank else ""
    name = f"condition-{wording}-{rows}-{learning_rate:g}-{epochs:g}{adapters}"
    write = WORDINGS[wording]

    def compute() -> dict[str, Any]:
        tokenizer = load_tokenizer(str(model))
        chosen = choose(short_rows(read_table(train), tokenizer), rows)
        policy = output / name / "policy"
        lora = {"rank": lora_rank, "alpha": 2 * lora_rank} if lora_rank else None
        cpu = time.process_time()
        if not policy.exists():
            finetune_conversations(
                training_job(model, policy, learning_rate, epochs, lora=lora),
                (messages(row.prompt, write(row.direction), row.response) for row in chosen),
            )
        trained = json.loads(Path(f"{policy}.meta.json").read_text())
        training = time.process_time() - cpu
        unseen = short_rows(read_table(validation), tokenizer).drop_duplicates("prompt")
        samples = list(sample(policy, unseen.instruction.tolist()[:PROMPTS], write))
        path = output / name / "samples.jsonl"
        path.write_text("".join(json.dumps(s) + "\n" for s in samples))
        return {
            "rows": rows,
            "wording": wording,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "lora_rank": lora_rank,
            "spearman_in_the_rows": spearman(
                np.array([angle(row.direction) for row in chosen]),
                np.array([len(row.response) for row in chosen]),
            ),
            "train_loss": trained["train_loss"],
            "training_cpu_seconds": round(training),
            **lengths_by_direction(samples),
        }

    print(json.dumps(piece(output / f"{name}.json", compute), indent=1))


def sample(policy: Path, prompts: list[str], write: Callable[[Direction], str]) -> Iterator[dict]:
    """One response to each prompt under each direction of the paper's grid, at temperature 0.7."""
    from dpa.generation.engine import Request
    from dpa.generation.load import load_engine
    from dpa.seeds import derive_seed

    engine = load_engine(
        "transformers", str(policy), temperature=0.7, max_new_tokens=MOST_TOKENS,
        max_model_len=512, rows_per_batch=CHUNK * DIRECTIONS, dtype="bfloat16",
    )  # fmt: skip
    grid = evaluation_directions(ARC, DIRECTIONS)
    for start in range(0, len(prompts), CHUNK):
        asked = [(text, v) for text in prompts[start : start + CHUNK] for v in grid]
        chunk = [
            Request(
                engine.chat.prompt_ids(messages(text, write(v))),
                [derive_seed(0, "real-text", prompt_id(text), i % DIRECTIONS)],
            )
            for i, (text, v) in enumerate(asked)
        ]
        [completions] = engine.generate([chunk])
        for (text, v), [found] in zip(asked, completions, strict=True):
            yield {
                "prompt": text, "direction": v, "response": found.text,
                "tokens": found.tokens, "finish_reason": found.finish_reason,
            }  # fmt: skip
    engine.close()


def lengths_by_direction(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """True lengths, in characters: their rank correlation with the angle, and each angle's."""
    table = pd.DataFrame(samples)
    table["angle"] = [round(angle(v), 1) for v in table.direction]
    table["length"] = table.response.str.len()
    groups = table.groupby("angle")
    median, mean = groups.length.median(), groups.length.mean()
    return {
        "spearman": spearman(table.angle.to_numpy(), table.length.to_numpy()),
        "spearman_of_means": spearman(mean.index.to_numpy(), mean.to_numpy()),
        "median_length": [float(x) for x in median],
        "mean_length": [round(float(x), 1) for x in mean],
        "truncated": [round(float((g.finish_reason == "length").mean()), 2) for _, g in groups],
    }


@app.command()
def reward_model(
    model: MODEL,
    train: TABLE,
    validation: TABLE,
    output: OUTPUT,
    rows: Annotated[int, typer.Option(help="Of the table, spread over its prompts; 0: all.")] = 0,
    max_length: Annotated[int, typer.Option(help="Of an input; its beginning goes.")] = 192,
    learning_rate: float = 1e-4,
    epochs: float = 1,
    scored: Annotated[int, typer.Option(help="Validation responses per prompt; 0: all.")] = 0,
) -> None:
    """Train a reward model on both attributes, and rank unseen prompts' responses by it."""

    from dpa.records import Rating
    from dpa.reward.load import load_scorer
    from dpa.reward.train import RewardTraining
    from dpa.training.trainer import run_training

    name = f"reward-{rows or 'all'}-{max_length}-{learning_rate:g}-{epochs:g}"

    def compute() -> dict[str, Any]:
        table = read_table(train)
        if rows:
            order = (
                table.sample(frac=1, random_state=0)
                .groupby("prompt")
                .cumcount()
                .sort_values(kind="stable")
            )
            table = table.loc[order.index[:rows]]
        folder = output / name / "model"
        cpu = time.process_time()
        if not folder.exists():
            ratings = (
                Rating(
                    prompt_id=row["prompt"], prompt=row["instruction"], response=row["output"],
                    attributes={a: row[a] for a in ATTRIBUTES}, dataset="table", split="train",
                )
                for row in table.to_dict("records")
            )  # fmt: skip
            job = training_job(
                model, folder, learning_rate, epochs,
                max_length=max_length, lr_scheduler="constant_with_warmup",
            )  # fmt: skip
            run_training(
                RewardTraining(
                    job, ratings, attributes=ATTRIBUTES, lm_loss_weight=0.0, token_dropout=0.0
                )
            )
        training = time.process_time() - cpu
        unseen = read_table(validation)
        if scored:
            unseen = unseen.sample(frac=1, random_state=0).groupby("prompt").head(scored)
        groups = [group for _, group in unseen.groupby("prompt")]
        scorer = load_scorer(str(folder), tokens_per_batch=2048)
        scores = scorer.score_groups((g.instruction.iloc[0], g.output.tolist()) for g in groups)
        pairs = [
            (s[:, 0], g["gpt4-preference"].to_numpy()) for s, g in zip(scores, groups, strict=True)
        ]
        within = [spearman(p, y) for p, y in pairs if len(set(y)) > 1 and len(set(p)) > 1]
        everything = [np.concatenate(side) for side in zip(*pairs, strict=True)]
        return {
            "rows": len(table),
            "max_length": max_length,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "training_cpu_seconds": round(training),
            "scored": len(everything[0]),
            "spearman": spearman(*everything),
            "spearman_within_prompt": float(np.mean(within)),
        }

    print(json.dumps(piece(output / f"{name}.json", compute), indent=1))


@app.command()
def precision(
    model: MODEL,
    train: TABLE,
    validation: TABLE,
    output: OUTPUT,
    reward: Annotated[Path, typer.Option(help="A reward model's folder.")],
    rows: Annotated[int, typer.Option(help="Sampled, scored and trained in each type.")] = 32,
    repeats: Annotated[int, typer.Option(help="Rounds; both types run once in each.")] = 3,
) -> None:
    """Measure bfloat16 against float32 on this CPU, by the processor's clock, on one thread."""
    import torch

    from benchmarks.harness import ratio, take_turns
    from benchmarks.models import single_thread
    from dpa.generation.engine import Request
    from dpa.generation.load import load_engine
    from dpa.models import load_tokenizer
    from dpa.reward.load import read_reward_model
    from dpa.reward.transformers_scorer import TransformersScorer, load_classifier

    single_thread()
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    tokenizer = load_tokenizer(str(model))
    short = short_rows(read_table(validation), tokenizer)
    prompts = short.drop_duplicates("prompt").instruction.tolist()[:rows]

    def sampling(name: str) -> tuple[Callable[[], Any], dict]:
        engine: Any = load_engine(
            "transformers", str(model), temperature=0, max_new_tokens=32, max_model_len=512,
            rows_per_batch=rows, dtype=name,
        )  # fmt: skip
        ids = [engine.chat.prompt_ids(messages(text, None)) for text in prompts]
        found: dict = {}

        def run() -> None:
            [answers] = engine.generate([[Request(i, [0]) for i in ids]])
            found["texts"] = [answer.text for [answer] in answers]
            found["tokens"] = sum(answer.tokens for [answer] in answers)

        return run, found

    read = read_reward_model(str(reward))
    some = read_table(validation).sample(8 * rows, random_state=0)
    groups = [(row.instruction, [row.output[:800]]) for row in some.itertuples()]

    def scoring(name: str) -> tuple[Callable[[], Any], dict]:
        classifier = load_classifier(read.ref, "cpu", types[name])
        scorer = TransformersScorer(classifier, read.inputs, read.names, 2048)
        found: dict = {"tokens": sum(len(ids) for ids, _ in read.inputs.tokenise(
            [(prompt, response) for prompt, [response] in groups]))}  # fmt: skip

        def run() -> None:
            found["scores"] = np.concatenate(scorer.score_chunk(groups))[:, 0]

        return run, found

    chosen = choose(short_rows(read_table(train), tokenizer), rows)

    def training(name: str) -> tuple[Callable[[], Any], dict]:
        from dpa.artefacts.row_counts import RowCounts
        from dpa.methods.sft import Finetuning, tokenise_conversations
        from dpa.training.trainer import load_training_chat

        job = training_job(model, output / "precision", 1e-5, 1, bf16=name == "bfloat16")
        chat, counts = load_training_chat(job), RowCounts()
        talks = [messages(c.prompt, as_in_the_paper(c.direction), c.response) for c in chosen]
        tokens = tokenise_conversations(chat, talks, 320, counts)
        trainer = Finetuning(job, chat, tokens, counts).make_trainer(output / "precision")
        found: dict = {"tokens": sum(len(row["input_ids"]) for row in tokens)}

        def run() -> None:
            found["loss"] = trainer.train().training_loss

        return run, found

    rows_found = []
    for what, make in (("sampling", sampling), ("scoring", scoring), ("training", training)):
        made = {name: make(name) for name in types}
        for run, _ in made.values():
            run()  # what is done once
        first = {name: dict(found) for name, (_, found) in made.items()}
        seconds = take_turns({n: run for n, (run, _) in made.items()}, repeats, time.process_time)
        a, b = first["float32"], first["bfloat16"]
        if what == "sampling":
            same = np.mean([x == y for x, y in zip(a["texts"], b["texts"], strict=True)])
            differs = f"{same:.0%} of greedy responses are equal"
        elif what == "scoring":
            apart = np.abs(a["scores"] - b["scores"])
            differs = (
                f"scores differ by {apart.mean():.2f} in the mean, {apart.max():.2f} at most, "
                f"Spearman {spearman(a['scores'], b['scores']):.4f}"
            )
        else:
            differs = f"losses of the first epoch {a['loss']:.4f} and {b['loss']:.4f}"
        speeds = {
            name: f"{found['tokens'] / np.median(seconds[name]):.0f}"
            for name, (_, found) in made.items()
        }
        gain = str(ratio(seconds["float32"], seconds["bfloat16"]))
        rows_found.append({"stage": what, **speeds, "gain": gain, "results": differs})
        print(rows_found[-1], flush=True)
    path = output / "precision.json"
    path.write_text(json.dumps({"rows": rows_found, "processor": cpu_model()}, indent=1))


@app.command()
def run(
    model: MODEL,
    train: TABLE,
    validation: TABLE,
    output: OUTPUT,
    minutes: Annotated[float, typer.Option(min=0, help="No piece begins after so many.")] = 15,
) -> None:
    """Make the pieces that are not there yet, what tells most first, and publish the tables."""
    until = time.monotonic() + 60 * minutes
    *curve, most = ({"rows": rows} for rows in ROWS)
    pieces = [*curve, *({"rows": VARIED} | varied for varied in VARIANTS), most]
    if time.monotonic() < until:
        reward_model(model, train, validation, output)
    for settings in pieces:
        if time.monotonic() < until:
            condition(model, train, validation, output, **settings)
    table(output)


@app.command()
def table(output: OUTPUT) -> None:
    """Publish the pieces that are there."""
    for kind, show in (("condition", condition_row), ("reward", reward_row)):
        found = [json.loads(p.read_text()) for p in output.glob(f"{kind}-*.json")]
        found.sort(key=lambda piece: (piece["rows"], piece.get("wording", "")))
        if found:
            rows = [show(piece) | measured(piece) for piece in found]
            command = "python -m benchmarks.real_text run"
            publish(f"real_text.{kind}", command, rows, document=DOCUMENT)


def condition_row(piece: dict[str, Any]) -> dict[str, str]:
    return {
        "written as": piece["wording"],
        "rows": f"{piece['rows']:,}",
        "learning rate": f"{piece['learning_rate']:g}",
        "epochs": f"{piece['epochs']:g}",
        "trained": f"LoRA {piece['lora_rank']}" if piece["lora_rank"] else "all weights",
        "loss": f"{piece['train_loss']:.2f}",
        "Spearman in the rows": f"{piece['spearman_in_the_rows']:.2f}",
        "Spearman of angle and length": f"{piece['spearman']:.2f}",
        "of the ten mean lengths": f"{piece['spearman_of_means']:.2f}",
        "median lengths": ", ".join(f"{length:.0f}" for length in piece["median_length"]),
        "cut": f"{np.mean(piece['truncated']):.0%}",
    }


def reward_row(piece: dict[str, Any]) -> dict[str, str]:
    return {
        "rows": f"{piece['rows']:,}",
        "tokens at most": str(piece["max_length"]),
        "learning rate": f"{piece['learning_rate']:g}",
        "epochs": f"{piece['epochs']:g}",
        "responses ranked": f"{piece['scored']:,}",
        "Spearman": f"{piece['spearman']:.2f}",
        "within a prompt": f"{piece['spearman_within_prompt']:.2f}",
    }


def measured(piece: dict[str, Any]) -> dict[str, str]:
    return {"minutes": f"{piece['seconds'] / 60:.1f}", "on": piece["processor"]}


if __name__ == "__main__":
    app()
