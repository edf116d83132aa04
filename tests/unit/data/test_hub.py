"""The public data sets in the hub's own file layout and schemas, loaded by their ids from a hub.

The hub is a stand-in on loopback; commits, file formats and cache are the real thing.
"""

import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpa.artefacts.jsonl import read_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.config.data import DataConfig, SourceConfig
from dpa.config.revisions import LOCKED
from dpa.data.ratings import read_ratings
from dpa.data.sources import read_messages, read_rows
from dpa.errors import InputError
from dpa.records import Prompt, Rating
from dpa.runtime.run_environment import CLONE
from dpa.text.prompts import prompt_id
from tests.support.hub_files import (
    BEAVERTAILS,
    BINARIZED,
    HELPSTEER,
    ULTRACHAT,
    ULTRAFEEDBACK,
    beavertails_row,
    binarized_row,
    completion,
    helpsteer_row,
    ultrachat_row,
    ultrafeedback_row,
    write_beavertails,
    write_binarized,
    write_helpsteer,
    write_ultrachat,
    write_ultrafeedback,
)
from tests.support.hub_server import commit_of, hub_server

#: The prompts of the binarized data; "Prompt 7?" is written differently in UltraFeedback.
PROMPTS = [f"Prompt {n}?" for n in range(40)]


def ultrafeedback() -> list[dict]:
    """Every flaw of the real file once, and clean rows for the other prompts."""
    rows = [
        ultrafeedback_row(prompt, [completion(m) for m in ("gpt-4", "bard", "llama", "alpaca")])
        for prompt in PROMPTS
    ]
    rows[0]["completions"] = [
        completion("gpt-4", ("N/A", "3", "N/A", "3"), overall=None),
        completion("bard", ("N/A",) * 4, overall=None),
        completion("llama", response=""),
        completion("alpaca", ("Rating: 3", "3", "3", "3")),
    ]
    rows[1]["completions"] = [
        completion("gpt-4", ("1", "1", "2", "1"), overall=10.0, fine_grained=None),
        completion("bard", ("3", "3", "4", "4"), overall=10.0, fine_grained=None),
        completion("llama", ("5", "5", "4", "5"), overall=10.0, fine_grained=4.75),
    ]
    rows[2]["completions"] = []
    rows[7]["instruction"] = "  Prompt   7?\n"
    rows[8]["source"] = "flan"
    rows.append(ultrafeedback_row("What is true?", [completion("gpt-4")] * 4, source="truthful_qa"))
    return rows


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> dict[tuple[str, str], Path]:
    """The five data sets, as folders in the hub's layout."""

    def folder(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    validation = [binarized_row(prompt) for prompt in PROMPTS[36:]]
    train = [binarized_row(prompt) for prompt in PROMPTS[:36]]
    missing, twice = binarized_row("Not in UltraFeedback?"), binarized_row(PROMPTS[3])
    pairs = [("Steal?", "Never.", True), ("Steal?", "Sure.", False), ("Steal?", "Never.", False)]
    pairs += [("Bomb?", "No.", True), ("Steal?", "Never.", True), ("Bomb?", "", False)]
    judgements = [beavertails_row(*pair) for pair in pairs]
    # As many clean rows as make the flaws a small share of all, as they are in the real files.
    judgements += [beavertails_row(f"Harm {n}?", "I will not.", True) for n in range(20)]
    found = {
        ULTRAFEEDBACK: write_ultrafeedback(folder("ultrafeedback"), ultrafeedback()),
        BINARIZED: write_binarized(
            folder("binarized"),
            train_prefs=[*train, missing, twice],
            test_prefs=validation,
            train_sft=train[:1],
        ),
        HELPSTEER: write_helpsteer(
            folder("helpsteer"),
            [helpsteer_row(f"Help {n}?", verbosity=0) for n in range(20)]
            + [helpsteer_row(PROMPTS[37])],
            [helpsteer_row("Help 3?", helpfulness=4)],
        ),
        BEAVERTAILS: write_beavertails(
            folder("beavertails"), "30k", judgements, [beavertails_row("Kill?", "No.", True)]
        ),
        ULTRACHAT: write_ultrachat(
            folder("ultrachat"),
            train_sft=[ultrachat_row("Hi", "Hello", "More?", "No."), ultrachat_row("Bye", "Bye.")],
            test_sft=[ultrachat_row("Hi", "Hello")],
        ),
    }
    return {("datasets", name): path for name, path in found.items()}


def hub_source(name: str, split: str, revision: str | None = None) -> dict[str, str]:
    return {"path": name, "revision": revision or commit_of(name), "split": split}


DATA = {
    "ratings": [
        {
            "name": "helpsteer",
            "format": "helpsteer",
            "train": hub_source(HELPSTEER, "train"),
            "validation": hub_source(HELPSTEER, "validation"),
        },
        {
            "name": "ultrafeedback",
            "format": "ultrafeedback",
            "train": hub_source(ULTRAFEEDBACK, "train"),
        },
        {
            "name": "beavertails",
            "format": "beavertails",
            "train": hub_source(BEAVERTAILS, "30k_train"),
            "validation": hub_source(BEAVERTAILS, "30k_test"),
        },
    ],
    "train_prompts": [hub_source(BINARIZED, "train_prefs")],
    "validation_prompts": [hub_source(BINARIZED, "test_prefs[:3]")],
    "unseen_prompts": [],
    "sft": [hub_source(ULTRACHAT, "train_sft")],
    "pretraining": [],
    "prompts_per_half": None,
    "original_responses": "ultrafeedback",
    "drop_sources": ["truthful_qa"],
    "max_dropped_fraction": 0.06,
}
OUTPUTS = {"ratings": Rating, "d1": Prompt, "d2": Prompt, "validation": Prompt}


def prepare(folder: Path, environment: dict[str, str], data: dict) -> subprocess.CompletedProcess:
    options = [f"--output-{name}={folder / name}.jsonl" for name in OUTPUTS]
    command = [sys.executable, "-m", "scripts.prepare_data", "--seed=0"]
    return subprocess.run(
        [*command, f"--data={json.dumps(data)}", *options],
        cwd=CLONE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def prepared(repositories, cache, tmp_path_factory):
    """prepare_data on all of them: (folder, its log, what the hub was asked for)."""
    folder = tmp_path_factory.mktemp("out")
    with hub_server(dict(repositories)) as hub:
        result = prepare(folder, hub.environment(cache), DATA)
    assert result.returncode == 0, result.stderr
    return folder, result.stderr, hub.requests


def records(folder: Path, name: str) -> list:
    return read_jsonl(folder / f"{name}.jsonl", OUTPUTS[name])  # type: ignore[type-var]


def sidecar(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.jsonl.meta.json").read_text())


class TestPrepared:
    def test_only_the_pinned_commits_are_asked_for(self, prepared):
        _, _, requests = prepared
        files = [path for path in requests if "/resolve/" in path]
        assert files
        for path in files:
            name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            assert rest.startswith(commit_of(name) + "/")

    def test_what_became_of_every_row(self, prepared):
        folder, log, _ = prepared
        counts = sidecar(folder, "ratings")["data_sets"]
        assert counts == {
            "helpsteer": {
                "read": 22,
                "kept": 22,
                "dropped": {},
                # A prompt of the validation file, and one of the validation prompts.
                "notes": {"moved to validation: prompt held out": 2},
            },
            "ultrafeedback": {
                "read": 37 * 4 + 4 + 3 + 1 + 4,
                "kept": 37 * 4 + 1 + 3,
                "dropped": {
                    "empty response": 1,
                    "malformed instruction_following": 1,
                    "no rating": 1,
                    "prompt without completions": 1,
                    "source truthful_qa": 4,
                },
                "notes": {
                    "moved to validation: prompt held out": 12,
                    "overall_score 10 repaired to 1": 1,
                    "overall_score 10 repaired to missing": 1,
                    "prompts with 0 completions": 1,
                    "prompts with 3 completions": 1,
                    "prompts with 4 completions": 39,
                },
            },
            "beavertails": {
                "read": 27,
                "kept": 24,
                "dropped": {
                    "empty response": 1,
                    "merged with the response's other judgements": 2,
                },
                "notes": {
                    "responses with 1 judgements": 23,
                    "responses with 3 judgements": 1,
                    "responses whose judges disagree": 1,
                },
            },
        }
        assert "ultrafeedback: read 160, kept 152" in log

    def test_joins_that_miss_are_counted_and_named(self, prepared):
        folder, log, _ = prepared
        assert sidecar(folder, "d1")["counts"]["dropped"] == {
            "duplicate": 1,
            "no rated response in ultrafeedback": 2,  # one is not there, one has no completions
            "odd one out": 1,
        }
        assert f"{BINARIZED}: no rated response in ultrafeedback: 'Not in UltraFeedback?'" in log

    def test_prompts_are_joined_whatever_their_spaces(self, prepared):
        folder, _, _ = prepared
        seven = prompt_id("Prompt 7?")
        found = [r for r in records(folder, "ratings") if r.prompt_id == seven]
        assert [r.prompt for r in found] == ["  Prompt   7?\n"] * 4

    def test_halves_and_validation_are_disjoint_and_slices_are_kept(self, prepared):
        folder, _, _ = prepared
        d1, d2, held = ({p.prompt_id for p in records(folder, n)} for n in list(OUTPUTS)[1:])
        assert len(d1) == len(d2) == 17
        assert not d1 & d2
        assert not (d1 | d2) & held
        assert held == {prompt_id(prompt) for prompt in PROMPTS[36:39]}

    def test_ratings(self, prepared):
        folder, _, _ = prepared
        found = {(r.prompt, r.response): r for r in records(folder, "ratings")}
        assert found["Prompt 0?", "The answer of gpt-4."].attributes == {
            "ultrafeedback-honesty": 50,
            "ultrafeedback-helpfulness": 50,
        }
        overall = [
            found["Prompt 1?", f"The answer of {m}."].attributes.get("ultrafeedback-overall_score")
            for m in ("gpt-4", "bard", "llama")
        ]
        assert overall == [5, None, 95]
        assert found["Help 0?", "Steered."].attributes["helpsteer-verbosity"] == 10
        assert found["Steal?", "Never."].attributes == {"beavertails-is_safe": 200 / 3}
        assert found["Steal?", "Sure."].attributes == {"beavertails-is_safe": 0}
        assert found["Kill?", "No."].split == "validation"
        assert not [r for r in found.values() if r.prompt == "What is true?"]

    def test_sidecars_name_the_commits(self, prepared):
        folder, _, _ = prepared
        inputs = sidecar(folder, "ratings")["inputs"]
        assert f"{ULTRAFEEDBACK}@{commit_of(ULTRAFEEDBACK)}" in inputs


class TestWithoutTheHub:
    """After a first run, on a machine without internet."""

    def environment(self, cache: Path) -> dict[str, str]:
        return {
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(cache),
        }

    def test_the_cache_gives_the_same_bytes(self, prepared, cache, tmp_path):
        result = prepare(tmp_path, self.environment(cache), DATA)
        assert result.returncode == 0, result.stderr
        for name in OUTPUTS:
            file = f"{name}.jsonl"
            assert (tmp_path / file).read_bytes() == (prepared[0] / file).read_bytes()

    def test_another_commit_in_the_cache_is_refused(self, prepared, cache, tmp_path):
        source = hub_source(BINARIZED, "test_prefs", revision="f" * 40)
        result = prepare(
            tmp_path, self.environment(cache), {**DATA, "validation_prompts": [source]}
        )
        assert result.returncode == 2
        assert "the hub cannot be reached, and the cache has commit" in result.stderr
        assert commit_of(BINARIZED) in result.stderr
        assert "Traceback" not in result.stderr


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """datasets with a cache of its own, in this process."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def local(folder: Path, split: str) -> SourceConfig:
    """A repository's folder, loaded as a hub id is: by datasets, from the card and file names."""
    return SourceConfig(path=str(folder), revision=LOCKED, split=split)


class TestFolders:
    def test_demonstrations(self, repositories, in_process):
        folder = repositories["datasets", ULTRACHAT]
        first, second = read_messages(local(folder, "train_sft"), RowCounts())
        assert [turn["role"] for turn in first] == ["user", "assistant", "user", "assistant"]
        assert second[1] == {"role": "assistant", "content": "Bye."}

    def test_nested_columns_arrive_whole(self, repositories, in_process):
        folder = repositories["datasets", ULTRAFEEDBACK]
        rows = list(read_rows(local(folder, "train")))
        assert len(rows) == 41
        truthfulness = next(
            c["annotations"]["truthfulness"] for r in rows for c in r["completions"]
        )
        assert truthfulness["Rationale For Rating"] == "It is true."
        row = next(iter(read_rows(local(repositories["datasets", BEAVERTAILS], "30k_train"))))
        assert row["category"]["privacy_violation"] is False

    def test_a_split_that_is_not_there(self, repositories, in_process):
        with pytest.raises(InputError, match=r"cannot load split '330k_train'.*30k_train"):
            list(read_rows(local(repositories["datasets", BEAVERTAILS], "330k_train")))

    def test_files_that_do_not_fit_together_name_their_columns(self, in_process, tmp_path):
        rows = [
            ultrafeedback_row("a", [completion("m")], source="flan"),
            ultrafeedback_row("b", [completion("m")], source="sharegpt"),
        ]
        rows[1]["answers"] = rows[1].pop("completions")
        folder = tmp_path / "repository"
        folder.mkdir()
        write_ultrafeedback(folder, rows)
        with pytest.raises(InputError, match=r"cannot load split 'train'.*answers"):
            list(read_rows(local(folder, "train")))


COMPRESSION = {
    ".gz": (gzip.decompress, gzip.compress),
    ".xz": (lzma.decompress, lzma.compress),
}
RENAMED = {
    "helpsteer": (HELPSTEER, "verbosity", "train"),
    "ultrafeedback": (ULTRAFEEDBACK, "overall_score", "train"),
    "beavertails": (BEAVERTAILS, "is_safe", "30k_train"),
}


@pytest.mark.parametrize("format", RENAMED)
def test_a_schema_changed_upstream_names_the_column(format, repositories, in_process, tmp_path):
    """The repository with one column called otherwise, through datasets and our reader."""
    name, column, split = RENAMED[format]
    folder = tmp_path / "repository"
    shutil.copytree(repositories["datasets", name], folder)
    for path in folder.rglob("*.jsonl*"):
        read, write = COMPRESSION.get(path.suffix, (bytes, bytes))
        content = read(path.read_bytes()).replace(f'"{column}"'.encode(), b'"renamed"')
        path.write_bytes(write(content))
    ratings = {"name": format, "format": format, "train": local(folder, split).model_dump()}
    data = DataConfig.model_validate({**DATA, "ratings": [ratings]})
    message = rf"row \d+.*no column '{column}'; columns found:.*renamed"
    with pytest.raises(InputError, match=message):
        list(read_ratings(data, set(), {}))
