"""Readers and commands on inputs that hypothesis spoils: bytes, tokens and whole values.

Whatever is read, a reader gives values or raises InputError: never another exception, never for
longer than ten seconds, and never is a file changed. A command that reads it ends with status 0 or
2 and one message, what it writes has its sidecar, and what it leaves is in no rerun's way.

Seeded: the same inputs every time. By hand, for longer:

    DPA_FUZZ_EXAMPLES=5000 uv run pytest tests/faults/test_fuzzing.py
"""

import gzip
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpa.artefacts.jsonl import decode_lines, encode
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import read_sidecar, write_sidecar
from dpa.conditions import read_conditions
from dpa.config.data import SourceConfig, TableConfig
from dpa.config.load import load_config
from dpa.config.revisions import read_lock
from dpa.data.formats import read_beavertails, read_helpsteer, read_ultrafeedback
from dpa.data.rated import Tally
from dpa.data.sources import read_messages, read_placed_rows
from dpa.data.user_table import read_table, table_scales
from dpa.errors import InputError
from dpa.evaluation.alpacaeval import read_outputs
from dpa.evaluation.alpacaeval_judges import read_annotations
from dpa.evaluation.judge_cache import judge_answers
from dpa.models import load_checkpoint_config, load_tokenizer
from dpa.plan.assumptions import shape_from_config
from dpa.plan.preflight import missing_files
from dpa.records import (
    Annotation,
    JudgedSample,
    Pair,
    Prompt,
    Rating,
    Sample,
    ScoredSample,
    Selected,
    Turn,
)  # fmt: skip
from dpa.report.page import read_artefacts
from dpa.report.run_record import run_record
from dpa.report.verify import artefact_problems
from dpa.runtime.sections import read_value, read_yaml
from dpa.text.prompts import prompt_id
from tests.support.finished_run import contents
from tests.support.script_processes import HEAVY, Done, processes
from tests.support.tiny_models import make_chat_tokenizer, make_policy, make_reward_model

EXAMPLES = int(os.environ.get("DPA_FUZZ_EXAMPLES", "60"))
SECONDS = 10
#: How much longer a process may take while others use the machine.
BUSY = 3


def fuzzed(examples: int = EXAMPLES) -> Callable:
    """Settings of a test: seeded, and without a clock of hypothesis' own."""
    return settings(
        max_examples=max(examples, 1),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# --- What is done to a file ------------------------------------------------------------------

#: What bytes are overwritten with, or have put between them.
PIECES = [
    b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n\n", b"\t", b'"', b"\\", b"{",
    b"}", b"[", b"]", b",", b":", b"NaN", b"-Infinity", b"1e999", b"-0", b"null", b"true", b"''",
    b"9" * 400, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"\\ud800", b"\xf0\x9f\xa6\xa6",
    b"&a [*a]", b"!!int x", b"%", b"PAR1", b"\x1f\x8b", b"=1+1", b"a" * 70_000,
    b"9007199254740993", b"-1", b"0",
]  # fmt: skip
#: Values in the place of others.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["", "N/A", "../..", "a\0b", 10**30, -1, [], {}, [[]], {"a": None}]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


@st.composite
def spoiled_bytes(draw: Any, good: bytes) -> bytes:
    """The file with one to three pieces overwritten, put in, cut out or repeated."""
    data = good
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 40)))
        match draw(st.sampled_from(["put", "cut", "end", "repeat"])):
            case "put":
                data = data[:at] + draw(st.sampled_from(PIECES)) + data[end:]
            case "cut":
                data = data[:at] + data[end:]
            case "end":
                data = data[:at]
            case "repeat":
                data = data[:end] + data[at:]
    return data


@st.composite
def spoiled_json(draw: Any, good: bytes) -> bytes:
    """JSON of which one value, somewhere, is another or is left out; lines are kept apart."""
    lines = good.splitlines()
    whole = len(lines) > 1 and not lines[0].endswith(b"}")
    parts = [good] if whole else lines
    at = draw(st.integers(0, len(parts) - 1))
    value = json.loads(parts[at])
    places = list(_places(value))
    if not places or draw(st.integers(0, 9)) == 0:
        value = draw(VALUES)
    else:
        holder, key = draw(st.sampled_from(places))
        if draw(st.booleans()):
            holder[key] = draw(VALUES)
        else:
            del holder[key]
    parts[at] = json.dumps(value).encode()
    return b"\n".join(parts) + b"\n"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        keys = list(range(len(value)))
    for key in keys:
        yield value, key
        yield from _places(value[key])


@contextmanager
def within_seconds() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise AssertionError(f"longer than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def consume(found: Any) -> None:
    """Read to the end."""
    for _ in found if isinstance(found, Iterator) else ():
        pass


def holds(read: Callable[[Path], Any], folder: Path) -> None:
    """What must be true of a reader, whatever is in the folder."""
    before = contents(folder)
    with within_seconds():
        try:
            consume(read(folder))
        except InputError as error:
            message = str(error)
            assert len(message) < 4000
            message.encode()  # can be printed
    assert contents(folder) == before


# --- Readers ---------------------------------------------------------------------------------


class Reader(NamedTuple):
    """A file as it should be, and what reads it; `json` if its values can be spoiled as such."""

    name: str
    file: str
    good: bytes
    read: Callable[[Path], Any]
    json: bool = True


def lines(*records: Any) -> bytes:
    return b"".join(encode(record) for record in records)


def source(path: Path) -> SourceConfig:
    return SourceConfig(path=str(path), revision=None, split=None)


TURNS = [Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "And?")]
SAMPLE: dict[str, Any] = {
    "prompt_id": "p", "direction_index": 0, "direction": [0.8, -0.6], "sample_index": 0, "seed": 3,
    "response": "An otter.", "finish_reason": "stop", "prompt_tokens": 9, "response_tokens": 3,
}  # fmt: skip
SCORES: dict[str, Any] = {"attributes": {"a": 1.5}, "rewards": [1.5, 2.0]}
RECORDS = [
    Prompt(prompt_id="p", prompt=TURNS, source="s"),
    Rating(prompt_id="p", prompt="a", response="b", attributes={"a": 3.0}, dataset="d",
           split="train"),
    Annotation(prompt_id="p", prompt="a", response="b", split="train", **SCORES),
    Sample(**SAMPLE), ScoredSample(**SAMPLE, **SCORES), JudgedSample(**SAMPLE, score=1.0),
    Selected(prompt_id="p", prompt="a", direction=[0.8, -0.6], response="b", rewards=[1.0, 2.0],
             scalar_reward=0.5, candidates=4, origin="sampled"),
    Pair(prompt_id="p", prompt="a", direction=None, chosen="b", rejected="c", margin=1.0),
]  # fmt: skip
ROWS = [
    {"prompt": "Describe it.", "response": "It swims.", "stars": 4, "likes": 10, "lang": "de"},
    {"prompt": "Describe the fox.", "response": "It runs,\nfast.", "stars": "n/a", "likes": 2.5,
     "lang": "no"},
]  # fmt: skip
CSV = b'prompt,response,stars,likes,lang\nA,"It\nswims",4,10,de\n"B, b",It runs.,n/a,2.5,no\n'
HELPSTEER = {"prompt": "a", "response": "b"} | dict.fromkeys(
    ("helpfulness", "correctness", "coherence", "complexity", "verbosity"), 3
)
ASPECTS = {
    aspect: {"Rating": "4"}
    for aspect in ("instruction_following", "truthfulness", "honesty", "helpfulness")
}
ULTRAFEEDBACK = {
    "instruction": "a", "source": "s",
    "completions": [{"response": "b", "annotations": ASPECTS, "overall_score": 7.5}],
}  # fmt: skip
TABLE = {
    "name": "mine", "format": "table", "keep": {"lang": ["de", "no"]}, "missing": ["n/a"],
    "attributes": {
        "helpsteer-verbosity": {"column": "stars", "from": [1, 5]},
        "helpsteer-coherence": {"column": "likes", "from": "rank"},
    },
}  # fmt: skip
MESSAGES = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
OUTPUTS = [{"instruction": "a", "output": "b", "generator": "g", "dataset": "d"}]
ANNOTATIONS = [
    {"instruction": "a", "output_1": "b", "output_2": "c", "annotator": "x", "preference": 1.5}
]
ANSWER = {
    "response": {
        "choices": [{"message": {"role": "assistant"}, "logprobs": {"content": [
            {"top_logprobs": [{"token": "m", "logprob": -0.1}]}]}}],
        "usage": {"total_tokens": 9},
    }
}  # fmt: skip


@cache
def parquet() -> bytes:
    import pandas as pd

    file = io.BytesIO()
    pd.DataFrame(ROWS).astype({"stars": str}).to_parquet(file)
    return file.getvalue()


def table_of(path: Path) -> Iterator[Any]:
    table = TableConfig.model_validate(TABLE | {"train": {"path": str(path)}})
    yield from read_table(read_placed_rows(table.train), Tally(), table, table_scales(table))


def answers(folder: Path) -> Any:
    store = judge_answers(folder)
    store.path("m", []).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "answer.json", store.path("m", []))
    found = store.get("m", [])
    shutil.rmtree(folder / "m")
    return found


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


READERS = [
    *(
        Reader(type(record).__name__, "in.jsonl", lines(record, record),
               lambda f, kind=type(record): decode_lines(f / "in.jsonl", kind))
        for record in RECORDS
    ),
    Reader("JSONL", "in.jsonl", lines(*ROWS), lambda f: read_placed_rows(source(f / "in.jsonl"))),
    Reader("gzip", "in.jsonl.gz", gzip.compress(lines(*ROWS), mtime=0),
           lambda f: read_placed_rows(source(f / "in.jsonl.gz")), json=False),
    Reader("JSON", "in.json", as_json(ROWS), lambda f: read_placed_rows(source(f / "in.json"))),
    Reader("CSV", "in.csv", CSV, lambda f: read_placed_rows(source(f / "in.csv")), json=False),
    Reader("parquet", "in.parquet", parquet(), lambda f: read_placed_rows(source(f / "in.parquet")),
           json=False),
    Reader("table of JSONL", "in.jsonl", lines(*ROWS), lambda f: table_of(f / "in.jsonl")),
    Reader("table of CSV", "in.csv", CSV, lambda f: table_of(f / "in.csv"), json=False),
    Reader("table of parquet", "in.parquet", parquet(), lambda f: table_of(f / "in.parquet"),
           json=False),
    Reader("HelpSteer", "in.jsonl", lines(HELPSTEER, HELPSTEER),
           lambda f: read_helpsteer(read_placed_rows(source(f / "in.jsonl")), Tally())),
    Reader("UltraFeedback", "in.jsonl", lines(ULTRAFEEDBACK, ULTRAFEEDBACK),
           lambda f: read_ultrafeedback(read_placed_rows(source(f / "in.jsonl")), Tally(), ["t"])),
    Reader("BeaverTails", "in.jsonl", lines({"prompt": "a", "response": "b", "is_safe": True}),
           lambda f: read_beavertails(read_placed_rows(source(f / "in.jsonl")), Tally())),
    Reader("messages", "in.jsonl", lines(MESSAGES, MESSAGES),
           lambda f: read_messages(source(f / "in.jsonl"), RowCounts())),
    Reader("outputs", "in.json", as_json(OUTPUTS), lambda f: read_outputs(f / "in.json")),
    Reader("annotations", "in.json", as_json(ANNOTATIONS),
           lambda f: read_annotations(f / "in.json")),
    Reader("a judge's answer", "answer.json", as_json(ANSWER), answers),
    Reader("conditions", "in.json", as_json({"targets": [[1.0, 2.0]], "curve": [[1, 2]]}),
           lambda f: read_conditions(f / "in.json")),
    Reader("YAML", "in.yaml", b"a: &a [1, 2]\nb: {c: *a, d: 'x'}\n? e\n: 2020-01-01\n",
           lambda f: read_yaml(f / "in.yaml"), json=False),
    Reader("a section", "in.json", as_json({"a": [1, {"b": None}]}),
           lambda f: read_value(f / "in.json")),
    Reader("an experiment", "mine.yaml",
           as_json({"seed": [0, 1], "shards": 2, "dpa": {"iterations": 3},
                    "methods": ["dpa", "sft"], "directions": {"from_degrees": -40},
                    "scalar_direction": [0.8, -0.6]}),
           lambda f: load_config({"experiment": str(f / "mine.yaml")})),
    Reader("revisions", "revisions.lock.yaml",
           b"models:\n  org/name: " + b"0123456789" * 4 + b"\ndatasets: {}\n",
           lambda f: read_lock(f / "revisions.lock.yaml"), json=False),
]  # fmt: skip


def check(reader: Reader, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / reader.file).write_bytes(data)
        holds(reader.read, Path(scratch))


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_a_reader(reader: Reader, count) -> None:
    check(reader, reader.good)
    tried = 0

    @fuzzed()
    @given(
        spoiled_bytes(reader.good) | spoiled_json(reader.good)
        if reader.json
        else spoiled_bytes(reader.good)
    )
    def spoil(data: bytes) -> None:
        nonlocal tried
        tried += 1
        check(reader, data)

    spoil()
    count(inputs=tried)


# --- Sidecars and checkpoints ----------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A small run: an artefact of each kind, with its sidecar."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "data/prompts").mkdir(parents=True)
    (folder / "data/prompts/d1.jsonl").write_bytes(lines(RECORDS[0]))
    write_sidecar(folder / "data/prompts/d1.jsonl")
    (folder / "table.csv").write_text("a\n1\n")
    write_sidecar(folder / "table.csv")
    record = run_record(folder, "mine", "0", [0])
    (folder / "provenance.json").write_text(json.dumps(record))
    write_sidecar(folder / "provenance.json")
    return folder


SIDECAR_READERS: list[Callable[[Path], Any]] = [
    lambda f: read_sidecar(f / "table.csv"),
    lambda f: decode_lines(f / "data/prompts/d1.jsonl", Prompt),
    artefact_problems,
    lambda f: run_record(f, "mine", "0", [0]),
    lambda f: read_artefacts(f),
]


@pytest.mark.parametrize(
    "file", ["table.csv.meta.json", "data/prompts/d1.jsonl.meta.json", "provenance.json"]
)
def test_sidecars(results, tmp_path, file, count):
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    good = (folder / file).read_bytes()
    tried = 0

    @fuzzed()
    @given(spoiled_bytes(good) | spoiled_json(json.dumps(json.loads(good)).encode() + b"\n"))
    def spoil(data: bytes) -> None:
        nonlocal tried
        tried += 1
        (folder / file).write_bytes(data)
        for read in SIDECAR_READERS:
            holds(read, folder)

    spoil()
    count(inputs=tried)


CHECKPOINT_READERS: dict[str, Callable[[Path], Any]] = {
    "config.json": lambda f: (load_checkpoint_config(f), shape_from_config(f / "config.json")),
    "tokenizer_config.json": load_tokenizer,
    "tokenizer.json": load_tokenizer,
    "chat_template.jinja": load_tokenizer,
    "model.safetensors.index.json": lambda f: missing_files(
        lambda name: f / name if (f / name).exists() else None
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = make_policy(tmp_path_factory.mktemp("model") / "policy", make_chat_tokenizer())
    index = {"metadata": {"total_size": 3}, "weight_map": {"a": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("file", CHECKPOINT_READERS)
def test_checkpoints(checkpoint, tmp_path, file, count):
    folder = tmp_path / "policy"
    shutil.copytree(checkpoint, folder)
    good = (folder / file).read_bytes()
    spoils = spoiled_bytes(good)
    if file.endswith(".json") and file != "tokenizer.json":
        spoils |= spoiled_json(json.dumps(json.loads(good)).encode() + b"\n")
    tried = 0

    @fuzzed()
    @given(spoils)
    def spoil(data: bytes) -> None:
        nonlocal tried
        tried += 1
        (folder / file).write_bytes(data)
        holds(CHECKPOINT_READERS[file], folder)

    spoil()
    count(inputs=tried)


# --- Commands --------------------------------------------------------------------------------

PROMPTS = [Prompt(prompt_id=prompt_id(text), prompt=text, source="s") for text in ("a", "b")]
RATINGS = [
    {**HELPSTEER, "prompt": prompt.prompt, "response": f"{prompt.prompt} {i}"}
    for prompt in PROMPTS
    for i in range(2)
]
DATA = {
    "ratings": [
        {"name": "helpsteer", "format": "helpsteer", "train": {"path": "helpsteer.jsonl"}},
        {"name": "ultrafeedback", "format": "ultrafeedback",
         "train": {"path": "ultrafeedback.jsonl"}},
        {**TABLE, "train": {"path": "table.csv"}},
    ],
    "train_prompts": [{"path": "train.jsonl"}], "validation_prompts": [{"path": "held.jsonl"}],
    "sft": [], "pretraining": [], "prompts_per_half": None, "original_responses": "ultrafeedback",
    "drop_sources": [], "max_dropped_fraction": 0.5,
}  # fmt: skip


def scored(direction: list[float] | None, index: int, each: int) -> bytes:
    """Every prompt's samples."""
    return lines(
        *(
            ScoredSample(**SAMPLE | {"prompt_id": prompt.prompt_id, "direction": direction,
                                     "direction_index": index, "sample_index": i},
                         attributes={"a": i}, rewards=[50.0 + i, 40.0 - i])
            for prompt in PROMPTS
            for i in range(each)
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """What the commands below read."""
    folder = tmp_path_factory.mktemp("inputs")
    files = {
        "data.json": as_json(DATA),
        "helpsteer.jsonl": lines(*RATINGS),
        "ultrafeedback.jsonl": lines(*(ULTRAFEEDBACK | {"instruction": t} for t in "abcd")),
        "table.csv": CSV,
        "train.jsonl": lines(*({"prompt": text} for text in "abc")),
        "held.jsonl": lines({"prompt": "d"}),
        "prompts.jsonl": lines(*PROMPTS),
        "ratings.jsonl": lines(
            *(
                Rating(prompt_id=p.prompt_id, prompt=p.prompt, response=f"{p.prompt} {i}",
                       attributes={"a": 30.0 * i}, dataset="d", split="train")
                for p in PROMPTS
                for i in range(3)
            )
        ),
        "annotations.jsonl": lines(
            *(
                Annotation(prompt_id=p.prompt_id, prompt=p.prompt, response=f"{p.prompt} {i}",
                           attributes={"a": 30.0 * i}, rewards=[50.0 + i, 40.0 - i], split="train")
                for p in PROMPTS
                for i in range(3)
            )
        ),
        "sampled.jsonl": scored(None, -1, 4),
        "dpa-1.jsonl": scored([0.8, -0.6], 0, 2) + scored([1.0, 0.0], 1, 2),
        "sft.jsonl": scored(None, 0, 2),
        "rows.jsonl": lines(*ROWS),
        "published.csv": b"method,a,b\ndpa,yes,yes\nsft,no,yes\n",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
        if name in ("annotations.jsonl", "sampled.jsonl"):
            write_sidecar(folder / name)
    make_reward_model(folder / "model")
    command("collect_validation_rewards", folder, check=True)
    (folder / "out/rewards.parquet").rename(folder / "rewards.parquet")
    shutil.rmtree(folder / "out")
    return folder


#: Script -> its arguments.
COMMANDS = {
    "prepare_data": "--data @data.json --seed 0 --output-ratings out/ratings.jsonl --output-d1 "
    "out/d1.jsonl --output-d2 out/d2.jsonl --output-validation out/validation.jsonl",
    "score_responses": "--reward-model model --table rows.jsonl --output out/scored.csv",
    "pair_ratings": "--ratings ratings.jsonl --prompts prompts.jsonl --dataset d --seed 0 "
    "--output out/pairs.jsonl",
    "compute_conditions": "--annotations annotations.jsonl --prompts prompts.jsonl --seed 0 "
    "--output out/conditions.json",
    "select_responses": "--scored sampled.jsonl --prompts prompts.jsonl --annotations "
    "annotations.jsonl --iteration 1 --seed 0 --shared --directions-per-prompt 2 "
    "--responses-per-direction 2 --output out/selected.jsonl",
    "collect_validation_rewards": "--scored sft.jsonl --scored dpa-1.jsonl --prompts prompts.jsonl "
    "--seed 0 --output-by-prompt out/rewards.parquet --output out/rewards.csv",
    "make_table1": '--prompt-rewards rewards.parquet --run . --stages {"dpa":[],"sft":[]} '
    "--objective-names helpfulness,verbosity --hypervolume-reference 0,100 --published "
    "published.csv --output-tables out",
}
SPOILT = [
    ("prepare_data", "data.json"), ("prepare_data", "helpsteer.jsonl"),
    ("prepare_data", "ultrafeedback.jsonl"), ("prepare_data", "table.csv"),
    ("prepare_data", "train.jsonl"),
    ("score_responses", "rows.jsonl"), ("score_responses", "model/config.json"),
    ("pair_ratings", "ratings.jsonl"), ("compute_conditions", "annotations.jsonl.meta.json"),
    ("compute_conditions", "annotations.jsonl"), ("select_responses", "sampled.jsonl"),
    ("select_responses", "sampled.jsonl.meta.json"), ("select_responses", "prompts.jsonl"),
    ("collect_validation_rewards", "dpa-1.jsonl"), ("make_table1", "rewards.parquet"),
    ("make_table1", "published.csv"),
]  # fmt: skip


def command(script: str, folder: Path, *, check: bool = False) -> Done:
    """Run a script to its end in a folder; `check` that it succeeds."""
    done = processes(HEAVY).start(script, COMMANDS[script].split(), folder).wait(BUSY * SECONDS)
    for log in folder.glob(".job*"):
        log.unlink()
    assert done.code == 0 or not check, done.output
    return done


def written(folder: Path, before: dict[str, bytes]) -> dict[str, bytes]:
    """What a command has added, without its sidecars, which it must have; it changes nothing."""
    after = contents(folder)
    assert {name: after.get(name) for name in before} == before
    new = {name: content for name, content in after.items() if name not in before}
    artefacts = {name for name in new if not name.endswith((".meta.json", ".partial.for"))}
    for name in artefacts:
        assert f"{name}.meta.json" in new or name.endswith(".partial"), name
    return {name: new[name] for name in artefacts}


@pytest.mark.slow
@pytest.mark.parametrize(("script", "file"), SPOILT)
def test_a_command(inputs, tmp_path, script, file, count):
    good = (inputs / file).read_bytes()
    spoils = spoiled_bytes(good)
    if file.endswith("json"):
        spoils |= spoiled_json(json.dumps(json.loads(good)).encode() + b"\n")
    if file.endswith("jsonl"):
        spoils |= spoiled_json(good)

    def copy(name: str) -> Path:
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(inputs, folder)
        if not file.endswith(".meta.json"):  # or that would tell
            (folder / f"{file}.meta.json").unlink(missing_ok=True)
        return folder

    undisturbed = copy("undisturbed")
    before = contents(undisturbed)
    command(script, undisturbed, check=True)
    expected = written(undisturbed, before)
    tried = 0

    @fuzzed(EXAMPLES // 15)
    @given(spoils)
    def spoil(data: bytes) -> None:
        nonlocal tried
        tried += 1
        folder = copy("spoilt")
        (folder / file).write_bytes(data)
        done = command(script, folder)
        assert done.code in (0, 2), done.output
        assert "Traceback" not in done.output
        assert done.output.count(" error: ") == (done.code == 2), done.output
        made = written(folder, before | {file: data})
        if done.code:
            assert not {name for name in made if not name.endswith(".partial")}
        (folder / file).write_bytes(good)
        command(script, folder, check=True)
        assert written(folder, before) == expected

    spoil()
    count(inputs=tried)
