"""Bad input of every kind, given to the rules' own commands.

Each case spoils one thing in a finished miniature run and starts the command that reads it. The
command must fail with one message that names place and remedy, without a traceback, without output,
and, where that can be known, before a model is loaded.
"""

import gzip
import importlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
import typer
from snakemake.cli import parse_config

from dpa.config.load import load_config
from dpa.errors import InputError
from tests.support.script_processes import HEAVY, LIGHT, processes

RUN = "results/tiny"
ARC = '{"distribution": "arc", "from_degrees": -45, "to_degrees": 0}'

# --- Configuration ---------------------------------------------------------------------------

#: (what is wrong, arguments of --config, what the message must say).
CONFIG = [
    ("misspelt key", "sead=1", "sead: unknown key, did you mean 'seed'?"),
    ("misspelt key in a section", "dpa={iteration: 3}", "dpa.iteration: unknown key, did you mean"),
    ("key of another section", "sft={beta: 1}", "sft.beta: unknown key"),
    ("text for a number", "shards=two", "shards: Input should be a valid integer"),
    ("fraction for a whole number", "shards=2.5", "shards: Input should be a valid integer"),
    ("too small", "shards=0", "shards: Input should be greater than 0"),
    ("truth value for a number", "shards=true", "shards: Input should be a valid integer"),
    ("text for a seed", "seed=true", "seed: Input should be a valid integer"),
    ("negative seed", "seed=-1", "seed: Input should be greater than or equal to 0"),
    ("no seeds", "seed=[]", "seed: List should have at least 1 item"),
    ("same seed twice", "seed=[1, 1]", "seed: the seeds of a list must differ"),
    ("number for a section", "dpa=4", "dpa: Input should be a valid dictionary"),
    ("list for a section", "dpa=[4]", "dpa: Input should be a valid dictionary"),
    ("nothing for a section", "dpa=null", "dpa: Input should be a valid dictionary"),
    ("no objectives", "objectives=[]", "objectives: List should have at least 1 item"),
    (
        "neither true nor false",
        "trainer={bf16: maybe}",
        "trainer.bf16: Input should be a",
    ),
    ("too few values", "trainer={adam_betas: [0.9]}", "trainer.adam_betas"),
    ("NaN", "sft={schedule: {learning_rate: nan}}", "sft.schedule.learning_rate: Input should be"),
    ("infinity", "sft={schedule: {learning_rate: inf}}", "sft.schedule.learning_rate: Input shou"),
    ("negative rate", "sft={schedule: {learning_rate: -1}}", "sft.schedule.learning_rate: Input"),
    ("temperature 0", "sampling={temperature: 0}", "sampling.temperature: Input should be greater"),
    ("replay of everything", "dpa={replay_fraction: 1}", "dpa.replay_fraction: Input should be le"),
    (
        "non-unit direction",
        "evaluation={directions: [[1, 0], [0.8, -0.8]]}",
        "evaluation.directions: direction [0.8, -0.8] has length 1.1314, not 1; nearest unit",
    ),
    (
        "direction that is no number",
        "evaluation={directions: [[1, 0], [nan, 0]]}",
        "evaluation.directions",
    ),
    ("too few weights", "scalar_direction=[1.0]", "scalar_direction: direction [1.0] has 1 weig"),
    ("angle out of range", "directions={from_degrees: -100}", "directions.arc.from_degrees: Input"),
    ("angles reversed", "directions={from_degrees: 0, to_degrees: -45}", "from_degrees must be b"),
    ("unknown distribution", "directions={distribution: spiral}", "directions: Input tag 'spiral'"),
    (
        "distribution of three objectives for two",
        "directions={distribution: wedge, from_degrees: -45, to_degrees: 45}",
        "directions.distribution: wedge is for exactly 3 objectives, there are 2",
    ),
    (
        "unknown output",
        "objectives=[{name: kindness, outputs: {kind: 1}}, {name: b, outputs: {kind: 1}}]",
        "objectives: kindness uses ['kind'], not in reward_model.attributes",
    ),
    (
        "NaN weight",
        "objectives=[{name: a, outputs: {helpsteer-verbosity: nan}}]",
        "objectives.0.outputs.helpsteer-verbosity: Input should be a finite number",
    ),
    ("unknown method", "methods=[dpa,ppoo]", "methods.1: Input should be 'dpa', 'steerlm'"),
    ("share above 1", "data={max_dropped_fraction: 1.5}", "data.max_dropped_fraction: Input shou"),
    ("training without validation prompts", "data={validation_prompts: []}", "give both train_pr"),
    (
        "hub data set without its split",
        "data={train_prompts: [{path: org/data, revision: abc}]}",
        "a hub data set needs both revision and split",
    ),
    ("unknown data set", "data={original_responses: x}", "data.original_responses: 'x' is not am"),
    ("contradictory widths", "base_model={scratch: {heads: 5}}", "hidden_size must be an even mul"),
    (
        "one corner too few",
        "evaluation={hypervolume_reference: [0]}",
        "give one value per objective",
    ),
    (
        "another's candidates without the other",
        "rsf={first_candidates: dpa} & methods=[rsf, sft]",
        "rsf.first_candidates: dpa, and there is no iteration of dpa to take them from",
    ),
    (
        "the ends of what has none",
        "experiment=quickstart-3obj & reward_soup={experts_at: ends}",
        "reward_soup.experts_at: only an arc has two ends",
    ),
    (
        "outside and yet within",
        "evaluation={outside_degrees: [-90, -20]}",
        "evaluation.outside_degrees: -20 is within the arc, from -45 to 0",
    ),
    (
        "angles of what has none",
        "experiment=quickstart-3obj & evaluation={outside_degrees: [-90]}",
        "evaluation.outside_degrees: only an arc has angles",
    ),
    (
        "an annotator of no kind",
        "feedback={annotator: {kind: crowd}}",
        "feedback.annotator",
    ),
    (
        "nothing to rate",
        "feedback={annotator: {kind: gold}, best_per_prompt: 0, random_per_prompt: 0}",
        "are both 0, so nothing would be rated; raise one of them",
    ),
    (
        "people of several seeds in one folder",
        "seed=[0, 1] & feedback={annotator: {kind: file, path: rated}}",
        "feedback.annotator.path: each seed has samples of its own; put {experiment}",
    ),
    (
        "an annotator of unknown attributes",
        "feedback={annotator: {kind: file, path: rated, scales: {style: [1, 7]}}}",
        "feedback.annotator: ['style'] are not in reward_model.attributes",
    ),
    (
        "gold in no world of ours",
        "experiment=gpt4-feedback & feedback={annotator: {kind: gold}}",
        "`gold` knows the quickstart's world only; choose another",
    ),
    (
        "a start that there is not",
        "feedback={start: last}",
        "feedback.start: Input should be 'base' or 'previous'",
    ),
    (
        "continuing what came from another base model",
        "reward_model={path: given} & feedback={annotator: {kind: gold}, start: previous}",
        "feedback.start: previous, and given (reward_model.path) was not made from a base model",
    ),
    (
        "members of a given model",
        "reward_model={path: given, members: 2}",
        "reward_model.members: 2, but reward_model.path gives one model, given",
    ),
    ("an average of one", "reward_model={average: true}", "reward_model.average: there is nothing"),
    ("pessimism of one", "dpa={pessimism: min}", "dpa.pessimism: needs several reward models"),
    (
        "unknown experiment",
        "experiment=nonesuch",
        "nonesuch.yaml: no such file (known experiments:",
    ),
    ("experiment elsewhere", "experiment=../secrets", "secrets.yaml: no such file (known"),
]

#: (what is wrong, the bytes of an experiment file, what the message must say).
EXPERIMENTS = [
    ("no mapping", b"- seed\n", "expected a mapping of keys"),
    ("empty", b"", "expected a mapping of keys"),
    ("no YAML", b"seed: [1\n", "line 2"),
    ("key given twice", b"seed: 1\nshards: 2\nseed: 3\n", "key 'seed' is given twice"),
    ("not UTF-8", b"seed: 1 # caf\xe9\n", "can't decode byte 0xe9"),
    ("a NUL", b"seed: 1\0\n", "special characters are not allowed"),
    ("extends nothing", b"extends: nonesuch\n", "nonesuch.yaml: no such file (known experiments:"),
    ("extends itself", b"extends: ../mine\n", "extends itself"),
    (
        "a world of one size",
        b"world: {helpsteer_rows: 9}\n",
        "world.ultrafeedback_prompts: missing",
    ),
    ("no list", b"data: {ratings: null}\n", "data.ratings: Input should be a valid list"),
    ("true for a number", b"dpa: {iterations: true}\n", "iterations: true is not a number"),
    ("true for a seed", b"seed: true\n", "seed: true is not a number"),
    ("NaN for a number", b"dpa: {replay_fraction: .nan}\n", "dpa.replay_fraction: Input should be"),
    ("a tab", b"dpa:\n\titerations: 3\n", "cannot start any token"),
]


def refused(values: dict) -> str:
    """The message with which the configuration is refused."""
    with pytest.raises(InputError) as caught:
        load_config(values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"), [c[1:] for c in CONFIG], ids=[c[0] for c in CONFIG]
)
def test_configuration(arguments, message):
    """As Snakemake reads --config; tests/workflow/test_dag.py has what a user then sees."""
    assert message in refused(parse_config(arguments.split(" & ")))


@pytest.mark.parametrize(
    ("content", "message"), [c[1:] for c in EXPERIMENTS], ids=[c[0] for c in EXPERIMENTS]
)
def test_experiment_file(tmp_path, monkeypatch, content, message):
    folder = tmp_path / "experiments"
    folder.mkdir()
    for name in ("config.yaml",):
        shutil.copy(Path(__file__).parents[2] / name, tmp_path / name)
    (tmp_path / "mine.yaml").write_bytes(content)
    monkeypatch.setattr("dpa.config.load.CLONE", tmp_path)
    found = refused({"experiment": str(tmp_path / "mine.yaml")})
    assert message in found
    assert ".yaml" in found


# --- Files -----------------------------------------------------------------------------------

Spoil = Callable[[Path], object]


def line(path: str, number: int, edit: Callable[[dict], object]) -> Spoil:
    """Edit the record in a line, counted from 1, or replace it by a JSON text."""

    def spoil(run: Path) -> None:
        lines = (run / path).read_text().splitlines()
        at = number - 1
        record = json.loads(lines[at])
        edited = edit(record)
        lines[at] = edited if str(edited).startswith('{"') else json.dumps(record)
        (run / path).write_text("".join(f"{text}\n" for text in lines))

    return spoil


def every_line(path: str, edit: Callable[[dict], object]) -> Spoil:
    """Edit all records."""

    def spoil(run: Path) -> None:
        records = [json.loads(text) for text in (run / path).read_text().splitlines()]
        for record in records:
            edit(record)
        (run / path).write_text("".join(json.dumps(record) + "\n" for record in records))

    return spoil


def content(path: str, change: Callable[[bytes], bytes]) -> Spoil:
    """Change a file's bytes; its sidecar, which counts its records, goes."""

    def spoil(run: Path) -> None:
        (run / f"{path}.meta.json").unlink(missing_ok=True)
        (run / path).write_bytes(change((run / path).read_bytes()))

    return spoil


def write(path: str, data: bytes) -> Spoil:
    return lambda run: [
        (run / f"{path}.meta.json").unlink(missing_ok=True),
        (run / path).write_bytes(data),
    ]


def delete(path: str) -> Spoil:
    return lambda run: (run / path).unlink()


def drop(path: str, number: int) -> Spoil:
    """Leave a line out."""

    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        del lines[number - 1]
        return b"".join(lines)

    return content(path, change)


def double(path: str, number: int) -> Spoil:
    """Repeat a line."""

    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join([*lines[:number], *lines[number - 1 :]])

    return content(path, change)


def settings(path: str, **values: object) -> Spoil:
    """Change keys of a JSON file; None deletes one."""

    def spoil(run: Path) -> None:
        found = json.loads((run / path).read_text()) | values
        kept = {key: value for key, value in found.items() if value is not None}
        (run / path).write_text(json.dumps(kept))

    return spoil


def template(policy: str, text: str) -> Spoil:
    return lambda run: (run / policy / "chat_template.jinja").write_text(text)


def no_template(policy: str) -> Spoil:
    return lambda run: (run / policy / "chat_template.jinja").unlink()


def tensor(model: str, name: str, value: float) -> Spoil:
    """Fill a tensor of a checkpoint."""

    def spoil(run: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(run / model / "model.safetensors")
        tensors[name] = tensors[name] * 0 + tensors[name].dtype.type(value)
        save_file(tensors, run / model / "model.safetensors", metadata={"format": "pt"})

    return spoil


def unchanged(run: Path) -> None:
    """The input is fine; the command's options are not."""


RAW = "data/raw"
UF, HS = f"{RAW}/ultrafeedback.jsonl", f"{RAW}/helpsteer/train.jsonl"
TRAIN = f"{RAW}/ultrafeedback_binarized/train_prefs.jsonl"
HELD = f"{RAW}/ultrafeedback_binarized/test_prefs.jsonl"
D1, D2 = "data/prompts/d1.jsonl", "data/prompts/d2.jsonl"
RATINGS = "data/ratings.jsonl"
SAMPLED, SCORED = "dpa/iter2/sampled/0.jsonl", "dpa/iter2/scored/0.jsonl"
ANNOTATED = "annotations/0.jsonl"
SELECTED = "dpa/iter2/selected.jsonl"
POLICY, STEERLM, RM = "dpa/iter1/policy", "dpa/iter0/policy", "reward_model/model"
SFT, BASE = "sft/policy", "base_model"
CONDITIONS = "steerlm/conditions.json"
DROPS_SYSTEM = (
    "{% for m in messages if m['role'] != 'system' %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + DROPS_SYSTEM
)


def rate_aspects(rating: str) -> Callable[[dict], object]:
    def edit(row: dict) -> None:
        for completion in row["completions"]:
            for aspect in completion["annotations"].values():
                aspect["Rating"] = rating

    return edit


def answer(text: str) -> Callable[[dict], object]:
    def edit(row: dict) -> None:
        for completion in row["completions"]:
            completion["response"] = text

    return edit


def same_prompts_but_for_spaces(run: Path) -> None:
    """Training prompts that are validation prompts once white space is folded."""
    held = [json.loads(text)["prompt"] for text in (run / HELD).read_text().splitlines()]
    rows = [{"prompt": f"  {prompt.replace(' ', '  ')}\n"} for prompt in held * 3]
    write(TRAIN, "".join(json.dumps(row) + "\n" for row in rows).encode())(run)


class Case(NamedTuple):
    """`before` is what must not have happened: `torch` imported, or `weights` read."""

    what: str
    script: str
    spoil: Spoil
    messages: tuple[str, ...]
    before: str | None = "torch"
    options: Mapping[str, str | None] = MappingProxyType({})
    part: str = ""


PREPARE = [
    Case("ratings out of range", "prepare_data", every_line(UF, rate_aspects("7")),
         ("ultrafeedback: dropped", "malformed instruction_following", "repair the data or raise")),
    Case("HelpSteer rating of 9", "prepare_data", every_line(HS, lambda r: r.update(verbosity=9)),
         ("helpsteer: dropped", "malformed verbosity")),
    Case("no column", "prepare_data", line(HS, 2, lambda r: r.pop("coherence")),
         ("helpsteer/train.jsonl:2: no column 'coherence'; columns found: prompt, response",)),
    Case("NaN", "prepare_data", line(HS, 3, lambda r: '{"prompt": "a", "response": NaN}'),
         ("helpsteer/train.jsonl:3", "JSON has no NaN or Infinity: write null")),
    Case("last line truncated", "prepare_data", content(UF, lambda b: b[:-40]),
         ("ultrafeedback.jsonl:44", "the line is truncated: make the file again")),
    Case("two objects on a line", "prepare_data",
         content(UF, lambda b: b.replace(b"}\n", b"}", 1)), ("ultrafeedback.jsonl:1", "trailing")),
    Case("blank line", "prepare_data", content(UF, lambda b: b + b"\n"),
         ("ultrafeedback.jsonl:45", "the line is blank: delete it")),
    Case("not UTF-8", "prepare_data", content(UF, lambda b: b.replace(b"I have", b"I \xff", 1)),
         ("ultrafeedback.jsonl:8", "'utf-8' codec can't decode")),
    Case("a raw NUL", "prepare_data", content(UF, lambda b: b.replace(b"I have", b"I \0", 1)),
         ("ultrafeedback.jsonl:", "nvalid")),
    Case("NUL in responses", "prepare_data", every_line(UF, answer("a\0b")),
         ("ultrafeedback: dropped", "NUL character in the response", "repair the data")),
    Case("NUL in prompts", "prepare_data", every_line(TRAIN, lambda r: r.update(prompt="a\0b")),
         ("train_prompts", "NUL character in the prompt")),
    Case("empty responses", "prepare_data", every_line(UF, answer(" \n")),
         ("ultrafeedback: dropped", "empty response")),
    Case("no completions", "prepare_data", every_line(UF, lambda r: r.update(completions=[])),
         ("ultrafeedback: dropped", "prompt without completions")),
    Case("completions are no list", "prepare_data", line(UF, 4, lambda r: r.update(completions=3)),
         ("ultrafeedback.jsonl:4: column 'completions' is not a list",)),
    Case("a prompt that is a number", "prepare_data", line(TRAIN, 2, lambda r: r.update(prompt=7)),
         ("train_prefs.jsonl:2: column 'prompt' is neither a string nor a list",)),
    Case("a prompt that the assistant ends", "prepare_data",
         line(TRAIN, 2, lambda r: r.update(prompt=[{"role": "assistant", "content": "Hi"}])),
         ("train_prefs.jsonl:2: column 'prompt' ends with a turn of the assistant",)),
    Case("an unknown role", "prepare_data",
         line(TRAIN, 2, lambda r: r.update(prompt=[{"role": "tool", "content": "Hi"}])),
         ("train_prefs.jsonl:2: column 'prompt'", "tool")),
    Case("neither prompt nor messages", "prepare_data", line(TRAIN, 1, lambda r: '{"text": "x"}'),
         ("train_prefs.jsonl:1: no column 'prompt'; columns found: text",)),
    Case("training prompts are the validation prompts", "prepare_data",
         lambda run: write(TRAIN, (run / HELD).read_bytes())(run),
         ("0 usable prompts are too few", "held out for validation", "give more prompts")),
    Case("they are but for white space", "prepare_data", same_prompts_but_for_spaces,
         ("0 usable prompts are too few", "held out for validation")),
    Case("no such file", "prepare_data", delete(HS), ("helpsteer/train.jsonl: no such file",)),
    Case("an empty file", "prepare_data", write(HS, b""),
         ("helpsteer/train.jsonl: no rows; give a file with data",)),
]  # fmt: skip


def table(path: str, **mapping: object) -> str:
    """The `data` section for a file of one's own."""
    columns = {"helpsteer-verbosity": {"column": "stars", "from": [1, 5]}}
    ratings = {"name": "mine", "format": "table", "train": {"path": path}}
    return json.dumps({
        "ratings": [ratings | {"attributes": columns} | mapping], "train_prompts": [],
        "validation_prompts": [], "original_responses": "mine", "sft": [], "pretraining": [],
        "prompts_per_half": None, "drop_sources": [], "max_dropped_fraction": 0.05,
    })  # fmt: skip


def csv(*rows: str) -> Spoil:
    return lambda run: (run / "mine.csv").write_text("".join(f"{row}\n" for row in rows))


MINE = {"data": table(f"{RUN}/mine.csv")}
HEADER = "prompt,response,stars"
TABLES = [
    Case("outside the scale", "prepare_data", csv(HEADER, "a,b,3", "a,c,6"),
         ("mine.csv:3: column 'stars' is 6, outside the scale from 1 to 5", "widen"), options=MINE),
    Case("no number", "prepare_data", csv(HEADER, "a,b,good"),
         ("mine.csv:2: column 'stars' is 'good', not a number", "under `missing`"), options=MINE),
    Case("infinity", "prepare_data", csv(HEADER, "a,b,inf"),
         ("mine.csv:2: column 'stars' is 'inf', not a number",), options=MINE),
    Case("no such column", "prepare_data", csv("prompt,response,score", "a,b,3"),
         ("no column 'stars'; columns found: prompt, response, score",), options=MINE),
    Case("a column twice", "prepare_data", csv("prompt,stars,stars", "a,1,2"),
         ("mine.csv:1: the header has ['stars'] more than once; rename",), options=MINE),
    Case("a comma too many", "prepare_data", csv(HEADER, "a,b,c,3"),
         ("mine.csv:2: 4 fields, the header has 3; quote fields",), options=MINE),
    Case("a quote that never ends", "prepare_data", csv(HEADER, 'a,"b,3'),
         ("mine.csv:2: unexpected end of data",), options=MINE),
    Case("CSV that is not UTF-8", "prepare_data",
         lambda run: (run / "mine.csv").write_bytes(f"{HEADER}\n".encode() + b"caf\xe9,b,3\n"),
         ("mine.csv:2: not UTF-8", "convert the file"), options=MINE),
    Case("no rating anywhere", "prepare_data", csv(HEADER, "a,b,"),
         ("mine: dropped 1 of 1", "no rating"), options=MINE),
    Case("a parquet file that is none", "prepare_data",
         lambda run: (run / "mine.parquet").write_bytes(b"PAR1 no"),
         ("mine.parquet: not a readable parquet file",),
         options={"data": table(f"{RUN}/mine.parquet")}),
    Case("an archive truncated", "prepare_data",
         lambda run: (run / "mine.jsonl.gz").write_bytes(
             gzip.compress(b'{"prompt": "a", "response": "b"}\n' * 99)[:-20]),
         ("mine.jsonl.gz: cannot be read",), options={"data": table(f"{RUN}/mine.jsonl.gz")}),
    Case("an unknown kind of file", "prepare_data",
         lambda run: (run / "mine.xlsx").write_bytes(b"PK"),
         ("mine.xlsx: unknown kind of file; known: .jsonl",),
         options={"data": table(f"{RUN}/mine.xlsx")}),
    Case("a data section with a wrong key", "prepare_data", unchanged,
         ("--data", "prompts_per_half"), options={"data": '{"prompts_per_half": "x"}'}),
]  # fmt: skip

SAMPLE = [
    Case("same prompt id twice", "sample_responses", double(D2, 1),
         ("d2.jsonl:2: prompt", "is there already, in line 1"), "weights"),
    Case("prompts of 1 MB", "sample_responses",
         lambda run: [drop(D2, 1)(run) for _ in range(7)]
         and line(D2, 1, lambda r: r.update(prompt="Describe the otter. " * 50_000))(run),
         ("are longer than sampling.max_prompt_tokens", "raise it"), "weights", {"shard": "1"}),
    Case("no prompts", "sample_responses", write(D2, b""), ("d2.jsonl: no prompts",), "weights"),
    Case("a prompt file truncated", "sample_responses", content(D2, lambda b: b[:-30]),
         ("d2.jsonl:8", "truncated"), "weights"),
    Case("a prompt without its id", "sample_responses", line(D2, 3, lambda r: r.pop("prompt_id")),
         ("d2.jsonl:3", "missing required field `prompt_id`"), "weights"),
    Case("no policy", "sample_responses", lambda run: shutil.rmtree(run / POLICY),
         (f"{POLICY}: cannot load the tokenizer: no such folder", "give a complete"), "weights"),
    Case("no chat template", "sample_responses", no_template(POLICY),
         (f"{POLICY}: the tokenizer has no chat template; use a chat model",), "weights"),
    Case("a template that drops the system message", "sample_responses",
         template(POLICY, DROPS_SYSTEM),
         (f"{POLICY}: the chat template leaves the system prompt out", "choose a"), "weights"),
    Case("a template that refuses it", "sample_responses", template(POLICY, REFUSES_SYSTEM),
         (f"{POLICY}: the chat template", "System role not supported"), "weights"),
    Case("a broken template", "sample_responses", template(POLICY, "{% for %}"),
         (f"{POLICY}: the chat template", "line 1"), "weights"),
    Case("no end token", "sample_responses",
         lambda run: [settings(f"{POLICY}/{f}", eos_token_id=None)(run)
                      for f in ("config.json", "generation_config.json")],
         (f"{POLICY}: names no end token", "set eos_token_id"), "weights"),
    Case("too few positions", "sample_responses",
         settings(f"{POLICY}/config.json", max_position_embeddings=100),
         (f"{POLICY}: holds 100 tokens, fewer than", "lower sampling"), "weights"),
    Case("a broken config.json", "sample_responses", write(f"{POLICY}/config.json", b"{"),
         (f"{POLICY}: cannot load the", "give a complete checkpoint"), "weights"),
    Case("an unknown architecture", "sample_responses",
         settings(f"{POLICY}/config.json", model_type="nope"),
         (f"{POLICY}: cannot load the", "nope"), "weights"),
    Case("a broken tokenizer", "sample_responses", write(f"{POLICY}/tokenizer.json", b"{}"),
         (f"{POLICY}: cannot load the tokenizer", "give a complete checkpoint"), "weights"),
    Case("weights truncated", "sample_responses",
         content(f"{POLICY}/model.safetensors", lambda b: b[:5000]),
         (f"{POLICY}: cannot load the weights", "give a complete checkpoint"), None),
    Case("no weights", "sample_responses", delete(f"{POLICY}/model.safetensors"),
         (f"{POLICY}: cannot load the weights", "give a complete checkpoint"), None),
    Case("weights of fewer layers", "sample_responses",
         settings(f"{POLICY}/config.json", num_hidden_layers=3),
         (f"{POLICY}: the checkpoint lacks 9 of the tensors", "layers.2"), None),
    Case("weights that have diverged", "sample_responses",
         tensor(POLICY, "model.norm.weight", float("nan")),
         (f"{POLICY}: predicts NaN or infinity; its training has diverged",), None),
    Case("a hub model that is not here, offline", "sample_responses", unchanged,
         ("org/nowhere: cannot load the tokenizer", "downloaded beforehand"), "weights",
         {"policy": f"org/nowhere@{'0' * 40}"}),
    Case("an unknown distribution", "sample_responses", unchanged, ("--directions", "spiral"),
         options={"directions": '{"distribution": "spiral"}'}),
    Case("no JSON", "sample_responses", unchanged, ("--sampling", "Expecting"),
         options={"sampling": "{temperature: 1}"}),
    Case("a distribution for three objectives", "sample_responses", unchanged,
         ("direction", "3 weights", "2 objectives"), "weights",
         {"directions": '{"distribution": "wedge", "from_degrees": -45, "to_degrees": 45}'}),
    Case("a fixed direction that is not a unit vector", "select_responses", unchanged,
         ("--directions", "nearest unit vector: 0.7071,-0.7071"),
         options={"directions": '{"distribution": "fixed", "direction": [0.8, -0.8]}'}),
    Case("a shard that there is not", "sample_responses", unchanged,
         ("shard 5 of 2: give a shard from 0 to 1",), options={"shard": "5"}),
    Case("broken conditions", "sample_responses", content(CONDITIONS, lambda b: b[:-9]),
         ("conditions.json", "rerun compute_conditions"), part="dpa/iter1-0"),
    Case("no conditions in them", "sample_responses",
         write(CONDITIONS, b'{"targets": [], "curve": []}'),
         ("conditions.json", "rerun compute_conditions"), part="dpa/iter1-0"),
    Case("conditions of three objectives", "sample_responses",
         write(CONDITIONS, b'{"targets": [[1, 2, 3]], "curve": [[1, 2, 3]]}'),
         ("condition", "3 ratings", "2 objectives", "rerun compute_conditions"), "weights",
         part="dpa/iter1-0"),
    Case("NaN in conditions", "sample_responses",
         write(CONDITIONS, b'{"targets": [[NaN, 2]], "curve": [[1, 2]]}'),
         ("conditions.json", "rerun compute_conditions"), part="dpa/iter1-0"),
]  # fmt: skip

SCORE = [
    Case("a sample without its response", "score_responses",
         line(SAMPLED, 2, lambda r: r.pop("response")),
         ("sampled/0.jsonl:2", "missing required field `response`")),
    Case("samples truncated", "score_responses", content(SAMPLED, lambda b: b[:-30]),
         ("sampled/0.jsonl:24", "truncated")),
    Case("samples of other prompts", "score_responses",
         line(SAMPLED, 5, lambda r: r.update(prompt_id="0" * 16)),
         ("sampled/0.jsonl:5: prompt 0000000000000000 is not in the prompt file", "delete them")),
    Case("a sample with a direction of length 1.1", "score_responses",
         line(SAMPLED, 3, lambda r: r.update(direction=[0.8, -0.8])),
         ("sampled/0.jsonl:3", "direction", "not 1")),
    Case("a sample with a condition out of range", "score_responses",
         line(SAMPLED, 3, lambda r: r.update(condition=[120, 3])), ("sampled/0.jsonl:3", "100")),
    Case("a finish reason of another engine", "score_responses",
         line(SAMPLED, 1, lambda r: r.update(finish_reason="abort")),
         ("sampled/0.jsonl:1", "abort")),
    Case("samples that were emptied", "score_responses",
         lambda run: (run / SAMPLED).write_bytes(b""),
         ("sampled/0.jsonl: has 0 records, but its sidecar counts 24", "delete the file")),
    Case("no samples file", "score_responses", delete(SAMPLED),
         ("sampled/0.jsonl: no such file",)),
    Case("outputs in another order", "score_responses",
         lambda run: reorder(run / RM / "config.json", slice(None, None, -1)),
         (f"{RM}: the reward model has the outputs", "expected"), "weights"),
    Case("an output too few", "score_responses",
         lambda run: reorder(run / RM / "config.json", slice(0, 9)),
         (f"{RM}: the reward model has the outputs", "expected"), "weights"),
    Case("an output too few, unnamed", "score_responses",
         settings(f"{RM}/config.json", id2label={str(i): f"LABEL_{i}" for i in range(9)},
                  label2id={f"LABEL_{i}": i for i in range(9)}),
         (f"{RM}: the reward model has 9 unnamed outputs, expected",), "weights"),
    Case("an objective of an output that is not there", "score_responses", unchanged,
         (f"{RM}: objectives: kindness uses ['kind']", "correct objectives"), "weights",
         {"objectives": '[{"name": "kindness", "outputs": {"kind": 1}}]'}),
    Case("a language model for a reward model", "score_responses", unchanged,
         ("sft/policy: the reward model has", "expected"), "weights",
         {"reward_model": f"{RUN}/{SFT}"}),
    Case("a reward model without its head", "score_responses",
         lambda run: shutil.copy(run / SFT / "model.safetensors", run / RM / "model.safetensors"),
         (f"{RM}: the checkpoint lacks 1 of the tensors", "score.weight"), None),
    Case("no reward model", "score_responses", lambda run: shutil.rmtree(run / RM),
         (f"{RM}: cannot load the configuration: no such folder",), "weights"),
    Case("a reward model truncated", "annotate_responses",
         content(f"{RM}/model.safetensors", lambda b: b[:-100]),
         (f"{RM}: cannot load the weights", "give a complete checkpoint"), None),
    Case("a reward model that has diverged", "score_responses",
         tensor(RM, "score.weight", float("inf")),
         ("sampled/0.jsonl:1: NaN or infinite", "look at its training log"), None),
    Case("an unknown data set", "annotate_responses", unchanged,
         ("no original responses", "--dataset nope"), "torch", {"dataset": "nope"}),
    Case("a shard that there is not", "annotate_responses", unchanged,
         ("--shard 2: must be below --shards 2",), options={"shard": "2"}),
    Case("ratings above 100", "annotate_responses",
         line(RATINGS, 2, lambda r: r.update(attributes={"helpsteer-verbosity": 101})),
         ("ratings.jsonl:2", "100")),
    Case("samples without prompts", "score_responses", unchanged,
         ("give either --samples with their --prompts, or --table",), options={"prompts": None}),
]  # fmt: skip


def reorder(config: Path, names: slice) -> None:
    found = json.loads(config.read_text())
    labels = list(found["id2label"].values())[names]
    found["id2label"] = {str(i): name for i, name in enumerate(labels)}
    found["label2id"] = {name: i for i, name in enumerate(labels)}
    config.write_text(json.dumps(found))


SELECT = [
    Case("a candidate is missing", "select_responses", drop(SCORED, 2),
         ("scored/0.jsonl: prompt", "has samples [0, 2], expected 0..2; delete the shard")),
    Case("a candidate twice", "select_responses", double(SCORED, 2),
         ("scored/0.jsonl: prompt", "expected 0..2; delete the shard")),
    Case("a candidate of another prompt file", "select_responses",
         line(SCORED, 1, lambda r: r.update(prompt_id="0" * 16)),
         ("scored/0.jsonl: prompt 0000000000000000 is not in the prompt file", "delete it")),
    Case("a candidate under another direction", "select_responses",
         every_line(SCORED, lambda r: r.update(direction=[1.0, 0.0])),
         ("scored/0.jsonl: prompt", "direction 0 is [1.0, 0.0], expected", "delete the shard")),
    Case("a later candidate under another direction", "select_responses",
         line(SCORED, 2, lambda r: r.update(direction=[1.0, 0.0])),
         ("scored/0.jsonl: prompt", "direction 0 is [1.0, 0.0], expected", "delete the shard")),
    Case("NaN reward", "select_responses",
         line(SCORED, 4, lambda r: json.dumps(r | {"rewards": [float("nan"), 1.0]})),
         ("scored/0.jsonl:4", "JSON has no NaN")),
    Case("infinite reward", "select_responses",
         line(SCORED, 4, lambda r: json.dumps(r | {"rewards": [7.5, 1.0]}).replace("7.5", "1e999")),
         ("scored/0.jsonl:4", "out of range")),
    Case("rewards of three objectives", "select_responses",
         line(SCORED, 4, lambda r: r.update(rewards=[1.0, 2.0, 3.0])),
         ("scored/0.jsonl: prompt", "3 rewards", "2 objectives")),
    Case("rewards that are text", "select_responses",
         line(SCORED, 4, lambda r: r.update(rewards=["1", "2"])), ("scored/0.jsonl:4", "float")),
    Case("scores truncated", "select_responses", content(SCORED, lambda b: b[:-9]),
         ("scored/0.jsonl:24", "truncated")),
    Case("scores that are not UTF-8", "select_responses",
         content(SCORED, lambda b: b.replace(b'"response":"', b'"response":"\xff', 1)),
         ("scored/0.jsonl:1", "'utf-8' codec can't decode")),
    Case("no candidates at all", "select_responses",
         lambda run: [write(f"dpa/iter2/scored/{i}.jsonl", b"")(run) for i in (0, 1)],
         ("no prompt has candidates", "scored")),
    Case("a shard that was emptied", "select_responses",
         lambda run: (run / SCORED).write_bytes(b""),
         ("scored/0.jsonl: has 0 records, but its sidecar counts 24", "delete the file and rerun")),
    Case("a shard that lost its last prompt", "select_responses",
         lambda run: (run / SCORED).write_bytes(
             b"".join((run / SCORED).read_bytes().splitlines(keepends=True)[:18])),
         ("scored/0.jsonl: has 18 records, but its sidecar counts 24", "delete the file")),
    Case("a shard is missing", "select_responses", delete(SCORED),
         ("scored/0.jsonl: no such file",)),
    Case("a shard twice", "select_responses",
         lambda run: shutil.copy(run / SCORED, run / "dpa/iter2/scored/1.jsonl"),
         ("scored/1.jsonl: prompt", "is out of order or in two shards; delete the shards")),
    Case("a prompt twice", "select_responses", double(D2, 3),
         ("d2.jsonl:4: prompt", "is there already, in line 3")),
    Case("annotations truncated", "select_responses", content(ANNOTATED, lambda b: b[:-9]),
         ("annotations/0.jsonl:", "truncated")),
    Case("annotations with NaN", "select_responses",
         line(ANNOTATED, 1, lambda r: json.dumps(r | {"rewards": [float("nan"), 1.0]})),
         ("annotations/0.jsonl:1", "JSON has no NaN")),
    Case("annotations of one objective", "select_responses",
         every_line(ANNOTATED, lambda r: r.update(rewards=[1.0])),
         ("annotation", "1 rewards", "2 objectives")),
    Case("no original responses", "select_responses",
         lambda run: [write(f"annotations/{i}.jsonl", b"")(run) for i in (0, 1)],
         ("no prompt has original responses; set dpa.replay_fraction to 0",)),
    Case("annotations of other prompts", "compute_conditions",
         every_line(D2, lambda r: r.update(prompt_id=r["prompt_id"][::-1])),
         ("d2.jsonl: none of these prompts has an annotated response",)),
    Case("annotations with a field too many", "compute_conditions",
         line(ANNOTATED, 2, lambda r: r.update(note="x")),
         ("annotations/0.jsonl:2", "unknown field `note`")),
    Case("iteration 0", "select_responses", unchanged, ("--iteration",),
         options={"iteration": "0"}),
]  # fmt: skip

TRAIN_CASES = [
    Case("a non-unit direction", "finetune_policy",
         line(SELECTED, 3, lambda r: r.update(direction=[0.8, -0.8])),
         ("selected.jsonl:3", "direction [0.8, -0.8] has length 1.1314, not 1"), "weights"),
    Case("a direction of three weights", "finetune_policy",
         line(SELECTED, 3, lambda r: r.update(direction=[1.0, 0.0, 0.0], rewards=[1.0] * 3)),
         ("selected.jsonl:3", "3 weights, expected 2"), "weights"),
    Case("nothing selected", "finetune_policy", write(SELECTED, b""),
         ("no rows to train on",), "weights"),
    Case("all rows too long", "finetune_policy", unchanged,
         ("no rows to train on", "longer than max_length"), "weights",
         {"schedule": '{"learning_rate": 1e-3, "epochs": 1, "batch_size": 4, "warmup_steps": 0, '
                      '"lr_scheduler": "cosine", "max_length": 3}'}),
    Case("selected rows truncated", "finetune_policy", content(SELECTED, lambda b: b[:-20]),
         ("selected.jsonl:19", "truncated"), "weights"),
    Case("no chat template", "finetune_policy", no_template(SFT),
         (f"{SFT}: the tokenizer has no chat template",), "weights"),
    Case("a template that drops the system message", "finetune_policy",
         template(SFT, DROPS_SYSTEM),
         (f"{SFT}: the chat template leaves the system prompt out",), "weights"),
    Case("a template that refuses it", "finetune_policy", template(SFT, REFUSES_SYSTEM),
         (f"{SFT}: the chat template", "System role not supported"), "weights"),
    Case("an SFT policy truncated", "finetune_policy",
         content(f"{SFT}/model.safetensors", lambda b: b[:999]),
         (f"{SFT}: cannot load the weights", "give a complete checkpoint"), None),
    Case("ratings of an unknown attribute", "train_reward_model",
         line(RATINGS, 1, lambda r: r.update(attributes={"kind": 3.0})), ("kind",), "weights"),
    Case("ratings below 0", "train_reward_model",
         line(RATINGS, 1, lambda r: r.update(attributes={"helpsteer-verbosity": -1.0})),
         ("ratings.jsonl:1", "0"), "weights"),
    Case("no ratings", "train_reward_model", write(RATINGS, b""),
         ("no labelled ratings to train on",), "weights"),
    Case("longer inputs than the base model holds", "train_reward_model",
         settings(f"{BASE}/config.json", max_position_embeddings=100),
         (f"{BASE}: holds 100 tokens, fewer than reward_model.schedule.max_length", "lower"), None),
    Case("no pairs", "train_dpo", write("dpo/pairs.jsonl", b""), ("no pairs to train on",),
         "weights"),
    Case("a pair that is no preference", "train_dpo",
         line("dpo/pairs.jsonl", 2, lambda r: r.update(margin=0.0)), ("pairs.jsonl:2", "0"),
         "weights"),
    Case("demonstrations without messages", "train_sft",
         line(f"{RAW}/ultrachat.jsonl", 2, lambda r: '{"text": "x"}'),
         ("ultrachat.jsonl:2: no column 'messages'",), "weights"),
    Case("messages without a role", "train_sft",
         line(f"{RAW}/ultrachat.jsonl", 2, lambda r: '{"messages": [{"content": "x"}]}'),
         ("ultrachat.jsonl:2: messages must be a list of {role, content}",), "weights"),
    Case("a batch that does not divide", "train_sft", unchanged,
         ("batch_size", "per_device_batch_size"), None,
         {"schedule": '{"learning_rate": 1e-3, "epochs": 1, "batch_size": 33, "warmup_steps": 0, '
                      '"lr_scheduler": "cosine", "max_length": 256}'}),
    Case("an expert is missing", "sample_soup",
         lambda run: shutil.rmtree(run / "rsf/100_0/iter1/policy"),
         ("rsf/100_0/iter1/policy: no such folder; train the expert first",), "weights"),
    Case("an expert truncated", "sample_soup",
         content("rsf/100_0/iter1/policy/model.safetensors", lambda b: b[:999]),
         ("rsf/100_0/iter1/policy/model.safetensors", "copy or save the checkpoint again"), None),
    Case("a grid that is no JSON", "sample_evaluation", unchanged, ("--grid",), None,
         {"grid": "ten"}, "dpa-2"),
    Case("a grid of non-unit directions", "sample_evaluation", unchanged,
         ("direction [1.0, 1.0] has length 1.4142", "nearest unit vector"), None,
         {"grid": "[[1, 1], [1, 0]]"}, "dpa-2"),
    Case("a direction out of length", "train_ppo", unchanged,
         ("direction [1.0, 1.0] has length 1.4142",), None, {"direction": "1.0,1.0"}),
]  # fmt: skip


def other_table(run: Path) -> None:
    """A parquet file of something else in the place of the prompt rewards."""
    import pandas as pd

    (run / "evaluation").mkdir(exist_ok=True)
    pd.DataFrame({"iteration": [1]}).to_parquet(run / "evaluation/prompt_rewards.parquet")


DPA2_SCORED = "evaluation/scored_by/reward_model/dpa-2.jsonl"
DPA2 = {"scored": f"{RUN}/{DPA2_SCORED}"}
REPORT = [
    Case("scores of other prompts", "collect_validation_rewards",
         line(DPA2_SCORED, 1, lambda r: r.update(prompt_id="0" * 16)),
         ("dpa-2.jsonl", "is not in the prompt file"), options=DPA2),
    Case("evaluated scores truncated", "collect_validation_rewards",
         content(DPA2_SCORED, lambda b: b[:-9]),
         ("dpa-2.jsonl:18", "truncated"), options=DPA2),
    Case("a figure of an empty table", "plot_pareto_front",
         write("evaluation/prompt_rewards.parquet", b""),
         ("prompt_rewards.parquet", "rerun collect_validation_rewards"), None),
    Case("a figure of another table", "plot_pareto_front",
         other_table,
         ("prompt_rewards.parquet: no column", "rerun collect_validation_rewards"), None),
]  # fmt: skip

CASES = [*PREPARE, *TABLES, *SAMPLE, *SCORE, *SELECT, *TRAIN_CASES, *REPORT]

#: What a command writes, where that is not --output alone.
OUTPUTS = {
    "prepare_data": ("output-ratings", "output-d1", "output-d2", "output-validation"),
    "train_ppo": ("output", "output-history"),
    "collect_validation_rewards": ("output", "output-by-prompt"),
    "plot_pareto_front": ("output-figures",),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.script}: {case.what}")
def test_bad_input(case: Case, finished_run, tmp_path):
    run = tmp_path / RUN
    shutil.copytree(finished_run.folder / RUN, run)
    parts = {
        "annotate_responses": "/0",
        "sample_responses": "dpa/iter2-0",
        "score_responses": "dpa/iter2-0",
        "select_responses": "dpa/iter2",
        "finetune_policy": "dpa/iter2",
    }
    part = case.part or parts.get(case.script, "")
    command = finished_run.command(case.script, part).changed(**case.options)
    environment = {"HF_HUB_OFFLINE": "1"} if "@" in (case.options.get("policy") or "") else {}
    if case.before == "weights":
        # Whoever reads these before the mistake is found says something else.
        for weights in run.rglob("*.safetensors"):
            weights.write_bytes(b"not to be read")
    case.spoil(run)
    outputs = [tmp_path / command.value(f"--{n}") for n in OUTPUTS.get(case.script, ("output",))]
    for output in outputs:
        shutil.rmtree(output, ignore_errors=True)
        output.unlink(missing_ok=True)
    before = set(tmp_path.rglob("*"))
    # Offline is what huggingface_hub reads when it is imported.
    start = processes(LIGHT if case.before == "torch" or environment else HEAVY)
    done = start.run(command.script, command.arguments, tmp_path, environment=environment)

    assert done.code == 2, done.output
    message = said(done.output)
    for fragment in case.messages:
        assert fragment in message
    assert "Traceback" not in done.output
    if case.before == "torch":
        assert "torch" not in done.imported
    left = set(tmp_path.rglob("*")) - before - set(tmp_path.glob(".job*"))
    # A shard or a training that has begun is kept for the run that resumes it.
    assert not {
        p for p in left if p.is_file() and ".partial" not in str(p.relative_to(tmp_path))
    }, left
    assert not any(output.exists() for output in outputs)


def said(output: str) -> str:
    """The one message of a failed command: ours, or Typer's about an option."""
    ours = re.findall(r"^\[\w+\] error: (.*(?:\n(?!\[).*)*)", output, re.MULTILINE)
    if not ours and "Usage:" in output:
        return output
    assert len(ours) == 1, output
    return ours[0]


def test_rules_and_scripts_agree_on_options(finished_run):
    """Every option of every planned command is one of its script's."""
    assert {case.script for case in CASES} <= {c.script for c in finished_run.commands}
    for command in finished_run.commands:
        app = importlib.import_module(f"scripts.{command.script}").app
        known = {name for p in typer.main.get_command(app).params for name in p.opts}
        used = {a.partition("=")[0] for a in command.arguments if re.match(r"--[a-z]", a)}
        assert used <= known, command.script


def test_there_are_enough_cases():
    names = [f"{case.script} {case.what}" for case in CASES]
    assert len(set(names)) == len(names)
    assert len(CASES) + len(CONFIG) + len(EXPERIMENTS) >= 80
