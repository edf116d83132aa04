"""An experiment from one file of ratings: hold-out, prompts, and a commented YAML.

The folder has `<name>.yaml` and beside it what it reads: `train.jsonl` and `validation.jsonl` (a
response per row, several raters' ratings of it as their mean) and the prompts of both.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from dpa.artefacts.jsonl import write_jsonl
from dpa.config.data import SourceConfig
from dpa.data.guess import PREFERENCE, Column, Columns, guess_columns, read_answers
from dpa.data.sources import read_placed_rows
from dpa.errors import InputError
from dpa.seeds import derive_seed
from dpa.text.prompts import Conversation, prompt_id

#: Rows that columns and scales are guessed from.
GUESSED_FROM = 5000
#: Prompts of which at least this many are held out, and of which at most.
FEWEST_HELD_OUT, MOST_HELD_OUT = 4, 500
#: The attribute that is made of the response itself where ratings have one only.
LENGTH = "length"
#: Rough length of a token, in characters of English.
ROUGH_TOKEN = 4


#: The longest sequence, in tokens, with a GPU and without.
LONGEST_ON_GPU, LONGEST_ON_CPU = 1536, 512
#: Held-out prompts that policies answer: a quarter of a half's, and at least so many.
FEWEST_ANSWERED = 16


class Machine(NamedTuple):
    """GPUs (their kind by dpa/plan/assumptions.yaml, None for none), GiB of one, and cores."""

    gpu: str | None
    gpus: int
    gpu_memory_gb: int
    cores: int


class RunSizes(NamedTuple):
    """What a run's time and memory depend on.

    `batch_size` are rows of a device's pass in training, `tokens_per_batch` tokens in scoring.
    """

    prompts_per_half: int
    iterations: int
    max_length: int
    max_new_tokens: int
    batch_size: int
    tokens_per_batch: int = 32768
    threads: int = 1
    lora: bool = False


class Response(NamedTuple):
    prompt: Conversation
    response: str
    ratings: dict[str, list[float]]


class UserFile(NamedTuple):
    """What was read: columns, responses by prompt, and what was left out by reason."""

    columns: Columns
    responses: dict[str, dict[str, Response]]
    dropped: Counter[str]
    merged: int

    @property
    def attributes(self) -> list[Column]:
        """The ratings' columns, and what is made besides."""
        rated = list(self.columns.ratings)
        if self.columns.chosen:
            rated = [Column(PREFERENCE, (0, 1))]
        return rated if len(rated) > 1 else [*rated, Column(LENGTH, "rank")]


def read_file(path: str, given: dict[str, str | None], ratings: list[str]) -> UserFile:
    """Read the file whole. Raises InputError naming place, cause and remedy."""
    source = SourceConfig(path=path)
    columns = guess_columns(
        list(islice(read_placed_rows(source), GUESSED_FROM)), path, given, ratings
    )
    found = UserFile(columns, {}, Counter(), 0)
    merged = 0
    for place, row in read_placed_rows(source):
        for answer in read_answers(row, columns, place):
            if isinstance(answer, str):
                found.dropped[answer] += 1
                continue
            known = found.responses.setdefault(prompt_id(answer.prompt), {})
            merged += answer.response in known
            kept = known.setdefault(answer.response, Response(answer.prompt, answer.response, {}))
            for name, value in answer.ratings.items():
                kept.ratings.setdefault(name, []).append(value)
    return found._replace(merged=merged)


def held_out(found: UserFile, path: str, share: float) -> set[str]:
    """Ids of the prompts for validation: the same ones however often the file is read or grows."""
    wanted = round(share * len(found.responses))
    wanted = min(max(wanted, FEWEST_HELD_OUT), MOST_HELD_OUT)
    if len(found.responses) < 4 * FEWEST_HELD_OUT:
        raise InputError(
            f"{path}: {len(found.responses)} different prompts, too few to learn from and to hold "
            f"some out; at least {4 * FEWEST_HELD_OUT} are needed"
        )
    ordered = sorted(found.responses, key=lambda identity: derive_seed("held out", identity))
    return set(ordered[:wanted])


def write_user_tables(folder: Path, found: UserFile, validation: set[str]) -> None:
    """The four files that the YAML names."""
    with_length = any(column.name == LENGTH for column in found.attributes)
    for name, is_validation in (("train", False), ("validation", True)):
        ids = [
            identity for identity in found.responses if (identity in validation) is is_validation
        ]
        rows = (
            {"prompt": r.prompt, "response": r.response}
            | {column: sum(v) / len(v) for column, v in r.ratings.items()}
            | ({LENGTH: len(r.response)} if with_length else {})
            for identity in ids
            for r in found.responses[identity].values()
        )
        write_jsonl(folder / f"{name}.jsonl", rows)
        write_prompts(folder / f"{name}_prompts.jsonl", found, ids)


def write_prompts(path: Path, found: UserFile, ids: Iterable[str]) -> None:
    """The prompts of these ids."""
    prompts = (next(iter(found.responses[identity].values())).prompt for identity in ids)
    write_jsonl(path, ({"prompt": prompt} for prompt in prompts))


def answered(validation: set[str], sizes: RunSizes) -> list[str]:
    """Ids of the held-out prompts that policies answer, in proportion to what they learn from."""
    return sorted(validation)[: max(FEWEST_ANSWERED, sizes.prompts_per_half // 4)]


def usual_sizes(found: UserFile, policy: str, prompts: int, machine: Machine) -> RunSizes:
    """The largest that a file and a policy allow: all prompts, and 95 % of responses whole."""
    lengths = sorted(
        len(r.response) for of_prompt in found.responses.values() for r in of_prompt.values()
    )
    tokens = lengths[int(0.95 * (len(lengths) - 1))] // ROUGH_TOKEN
    length = min(LONGEST_ON_GPU if machine.gpu else LONGEST_ON_CPU, context_of(policy))
    return RunSizes(
        prompts_per_half=prompts // 2,
        iterations=3,
        max_length=length,
        max_new_tokens=min(max(tokens, 32), length // 2),
        batch_size=2 if machine.gpu else 1,
    )


def experiment_text(
    folder: str,
    found: UserFile,
    policy: tuple[str, str | None],
    engine: str,
    machine: Machine,
    sizes: RunSizes,
) -> str:
    """The YAML of an experiment; `policy` is a folder, or a hub id with its revision."""
    attributes, length = found.attributes, sizes.max_length
    about_length = attributes[-1].name == LENGTH
    path, revision = policy
    model = f"{{path: {quoted(path)}, revision: {revision or 'null'}}}"
    objectives = "\n".join(
        f"  - name: {objective_name(a.name)}\n    outputs: {{{quoted(a.name)}: 1.0}}"
        for a in attributes
    )
    columns = "\n".join(
        f"        {quoted(a.name)}: {{column: {quoted(a.name)}, from: {scale(a)}}}"
        for a in attributes
    )
    return f"""\
# Written by new_experiment; every line may be changed. All keys, with what they mean: config.yaml.
extends: single-gpu

# A list has a folder for each seed: with [0, 1] what is made stays, and another run is added.
seed: [0]

# What a user weighs. An objective is a weighted sum of the reward model's outputs, each on 0-100.
objectives:
{objectives}

# From which directions training draws.
directions: {directions(len(attributes), about_length)}
scalar_direction: {[1.0] + [0.0] * (len(attributes) - 1)}
evaluation:
  # The worst value of each objective.
  hypervolume_reference: {[0.0] * (len(attributes) - 1) + [100.0 if about_length else 0.0]}

data:
  ratings:
    - name: mine
      format: table
      train: {{path: {quoted(folder + "/train.jsonl")}}}
      validation: {{path: {quoted(folder + "/validation.jsonl")}}}
      # `from` is the scale: [worst, best], or `rank` for skewed columns (docs/your-own-data.md).
      attributes:
{columns}
  train_prompts:
    - {{path: {quoted(folder + "/train_prompts.jsonl")}}}
  validation_prompts:
    - {{path: {quoted(folder + "/validation_prompts.jsonl")}}}
  original_responses: mine
  prompts_per_half: {sizes.prompts_per_half}

# The reward model starts from base_model, every policy from sft.
base_model: {model}
sft: {model}

reward_model:
  attributes: [{", ".join(quoted(a.name) for a in attributes)}]
  schedule: {{max_length: {length}}}
  tokens_per_batch: {sizes.tokens_per_batch}
  threads: {sizes.threads}

methods: [dpa, sft, steerlm]
steerlm: {{schedule: {{max_length: {length}}}}}
dpa: {{iterations: {sizes.iterations}, schedule: {{max_length: {length}}}}}

sampling:
  engine: {engine}
  max_prompt_tokens: {length - sizes.max_new_tokens}
  max_new_tokens: {sizes.max_new_tokens} # holds 95 % of the file's responses, if the machine can
  # Small models often do not end; lower it when yours does.
  max_truncated_fraction: 0.95
{machine_text(machine, sizes)}"""


def context_of(model: str) -> int:
    """How many tokens a folder's model holds; as many as wanted where nothing says so."""
    try:
        config = json.loads((Path(model) / "config.json").read_bytes())
    except (OSError, ValueError):
        config = {}
    return config.get("max_position_embeddings") or config.get("n_positions") or LONGEST_ON_GPU


def machine_text(machine: Machine, sizes: RunSizes) -> str:
    """Where it runs: what differs from single-gpu."""
    trainer = f"per_device_batch_size: {sizes.batch_size}"
    if machine.gpu is None:
        return f"""
# No GPU was found. On one, leave these out and raise prompts_per_half.
compute: {{gpu: false}}
threads: {sizes.threads}
trainer: {{{trainer}, bf16: false, gradient_checkpointing: false}}
"""
    if sizes.lora:
        trainer += ", lora: {rank: 16, alpha: 32}"
    # Batches are of a power of two.
    processes = 2 ** (machine.gpus.bit_length() - 1)
    return f"""
# The machine that it was written for; sizes fit its memory (dpa plan --experiment).
plan: {{gpu: {machine.gpu}, gpus: {machine.gpus}, gpu_memory_gb: {machine.gpu_memory_gb}}}
compute: {{training_processes: {processes}}}
shards: {machine.gpus}
trainer: {{{trainer}}}
"""


def directions(k: int, about_length: bool) -> str:
    """A distribution: of two objectives an arc, of more any weights that add up."""
    if k > 2:
        return f"{{distribution: dirichlet, signs: {[1] * k}, concentration: 1.0}}"
    low, high = (-45, 0) if about_length else (0, 90)
    return f"{{distribution: arc, from_degrees: {low}, to_degrees: {high}}}"


def objective_name(column: str) -> str:
    """A column's name as it stands in a prompt."""
    letters = (c if "a" <= c <= "z" else " " for c in column.lower())
    return "verbosity" if column == LENGTH else "_".join("".join(letters).split()) or "rating"


def scale(column: Column) -> str:
    if isinstance(column.scale, str):
        return column.scale
    return "[" + ", ".join(f"{end:g}" for end in column.scale) + "]"


def quoted(text: str) -> str:
    """A string as YAML reads it, which reads JSON's."""
    plain = text.replace("-", "").replace("_", "").replace("/", "").replace(".", "")
    return text if plain.isalnum() and not plain.isdigit() else json.dumps(text)


def summary(found: UserFile, validation: set[str]) -> dict[str, Any]:
    """What was found, for the terminal."""
    c = found.columns
    return {
        "prompt": c.prompt or f"(in {c.chosen})",
        "response": c.response or f"{c.chosen}, {c.rejected}",
        "ratings": {a.name: a.scale for a in found.attributes},
        "left out": list(c.others),
        "responses": sum(map(len, found.responses.values())),
        "prompts": len(found.responses),
        "held out": len(validation),
        "merged": found.merged,
        "dropped": dict(found.dropped),
    }
