"""The real command, on files with the hub's schemas and the flaws that they have."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dpa.artefacts.jsonl import read_jsonl
from dpa.records import Prompt, Rating, Record
from dpa.runtime.run_environment import CLONE
from dpa.text.prompts import prompt_id

OUTPUTS: dict[str, type[Record]] = {
    "ratings": Rating,
    "d1": Prompt,
    "d2": Prompt,
    "validation": Prompt,
}


def run(
    folder: Path, data: dict[str, Any], seed: int = 0, *more: str
) -> subprocess.CompletedProcess[str]:
    """`python -m scripts.prepare_data`, with the outputs in `folder`."""
    whole = {
        "ratings": [],
        "train_prompts": [],
        "validation_prompts": [],
        "unseen_prompts": [],
        "sft": [],
        "pretraining": [],
        "prompts_per_half": None,
        "original_responses": "ultrafeedback",
        "drop_sources": ["truthful_qa"],
        "max_dropped_fraction": 0.05,
    }
    options = [f"--output-{name}={folder / name}.jsonl" for name in OUTPUTS]
    command = [sys.executable, "-m", "scripts.prepare_data", f"--data={json.dumps(whole | data)}"]
    return subprocess.run(
        [*command, f"--seed={seed}", *options, *more], cwd=CLONE, capture_output=True, text=True
    )


def outputs(folder: Path) -> dict[str, list[Record]]:
    return {name: read_jsonl(folder / f"{name}.jsonl", type) for name, type in OUTPUTS.items()}


def sidecar(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.jsonl.meta.json").read_text())


def write(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return {"path": str(path)}


def completion(model: str, rating: str = "4", overall: float | None = 7.0) -> dict[str, Any]:
    short = {"Rating": rating, "Rationale": "r"}
    long = {**short, "Type": ["None"], "Rationale For Rating": "r"}
    return {
        "annotations": {
            "helpfulness": long,
            "honesty": short,
            "instruction_following": short,
            "truthfulness": long,
        },
        "critique": "c",
        "custom_system_prompt": "s",
        "model": model,
        "overall_score": overall,
        "principle": "helpfulness",
        "response": f"The answer of {model}.",
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """Raw files of 41 prompts, and the `data` section that names them."""
    raw = tmp_path_factory.mktemp("raw")
    ultrafeedback = [
        {
            "source": "sharegpt",
            "instruction": f"Question {i}?",
            "models": ["gpt-4", "alpaca-7b"],
            "completions": [completion("gpt-4"), completion("alpaca-7b", "2", 3.0)],
            "correct_answers": ["None"],
            "incorrect_answers": ["None"],
        }
        for i in range(40)
    ]
    ultrafeedback[0]["completions"] = [
        completion("gpt-4", "1", 10.0),
        completion("alpaca-7b", "N/A", 10.0),
        completion("bard", "N/A", 2.0),
    ]
    ultrafeedback.append({**ultrafeedback[1], "source": "truthful_qa", "instruction": "Truth?"})
    helpsteer = [
        {
            "prompt": f"Question {i}?",
            "response": "Steered.",
            "helpfulness": 4,
            "correctness": 3,
            "coherence": 2,
            "complexity": 1,
            "verbosity": 0,
        }
        for i in (5, 30, 31, 100)
    ]
    # As in the real data: white space differs between the data sets, and some prompts are missing.
    train = [{"prompt": f"Question  {i}?\n", "messages": []} for i in range(30)]
    train += [train[0], {"prompt": "question 30?"}, {"prompt": "Question 30?"}]
    validation = [{"prompt": f"Question {i}?"} for i in range(30, 36)] + [{"prompt": "New?"}]
    data = {
        "ratings": [
            {
                "name": "helpsteer",
                "format": "helpsteer",
                "train": write(raw / "hs" / "train.jsonl.gz", helpsteer),
                "validation": write(
                    raw / "hs" / "validation.jsonl.gz", [{**helpsteer[0], "prompt": "Question 7?"}]
                ),
            },
            {
                "name": "ultrafeedback",
                "format": "ultrafeedback",
                "train": write(raw / "uf.jsonl", ultrafeedback),
            },
        ],
        "train_prompts": [write(raw / "train_prefs.jsonl", train)],
        "validation_prompts": [write(raw / "test_prefs.jsonl", validation)],
    }
    return raw, data


@pytest.fixture(scope="module")
def prepared(world, tmp_path_factory) -> tuple[Path, dict[str, list[Any]], str]:
    folder = tmp_path_factory.mktemp("out")
    result = run(folder, world[1])
    assert result.returncode == 0, result.stderr
    return folder, outputs(folder), result.stderr


class TestOutputs:
    def test_halves_are_disjoint_and_held_out_prompts_are_in_neither(self, prepared):
        _, found, _ = prepared
        d1, d2, validation = ({p.prompt_id for p in found[n]} for n in ("d1", "d2", "validation"))
        assert len(d1) == len(d2) == len(found["d1"]) == len(found["d2"]) == 14
        assert not d1 & d2
        assert not (d1 | d2) & validation
        training = {r.prompt_id for r in found["ratings"] if r.split == "train"}
        assert not training & validation
        assert (d1 | d2) <= training

    def test_prompts_of_ratings_validation_files_are_held_out_too(self, prepared):
        _, found, _ = prepared
        seven = prompt_id("Question 7?")
        assert {r.split for r in found["ratings"] if r.prompt_id == seven} == {"validation"}
        assert seven not in {p.prompt_id for p in found["d1"] + found["d2"]}

    def test_prompts_keep_their_text_and_source(self, prepared, world):
        _, found, _ = prepared
        assert found["validation"][0].prompt == "Question 30?"
        assert all(p.source == str(world[0] / "train_prefs.jsonl") for p in found["d1"])

    def test_ratings(self, prepared):
        _, found, _ = prepared
        first = [r for r in found["ratings"] if r.prompt_id == prompt_id("Question 0?")]
        assert [r.attributes.get("ultrafeedback-overall_score") for r in first] == [5, 15]
        assert first[0].attributes["ultrafeedback-honesty"] == 10
        assert "ultrafeedback-honesty" not in first[1].attributes
        steered = found["ratings"][0]
        assert (steered.dataset, steered.attributes["helpsteer-helpfulness"]) == ("helpsteer", 90)
        assert not [r for r in found["ratings"] if r.prompt == "Truth?"]

    def test_everything_is_counted(self, prepared):
        folder, found, log = prepared
        counts = sidecar(folder, "ratings")
        assert counts["data_sets"] == {
            "helpsteer": {
                "read": 5,
                "kept": 5,
                "dropped": {},
                "notes": {"moved to validation: prompt held out": 2},
            },
            "ultrafeedback": {
                "read": 83,
                "kept": 80,
                "dropped": {"no rating": 1, "source truthful_qa": 2},
                "notes": {
                    "moved to validation: prompt held out": 14,
                    "overall_score 10 repaired to 1": 1,
                    "overall_score 10 repaired to missing": 1,
                    "prompts with 2 completions": 40,
                    "prompts with 3 completions": 1,
                },
            },
        }
        assert counts["counts"]["kept"] == len(found["ratings"]) == 85
        assert sidecar(folder, "d1")["counts"] == {
            "read": 33,
            "kept": 28,
            "dropped": {
                "duplicate": 1,
                "held out for validation": 2,
                "no rated response in ultrafeedback": 1,
                "odd one out": 1,
            },
        }
        assert sidecar(folder, "validation")["without_rated_response"] == 1
        assert "ratings ultrafeedback: read 83, kept 80, dropped 1 no rating" in log
        assert "14 prompts each" in log

    def test_the_same_command_writes_the_same_bytes(self, prepared, world, tmp_path):
        assert run(tmp_path, world[1]).returncode == 0
        for name in OUTPUTS:
            file = f"{name}.jsonl"
            assert (tmp_path / file).read_bytes() == (prepared[0] / file).read_bytes()

    def test_unseen_prompts_are_held_out_and_marked(self, world, tmp_path):
        rows = [{"prompt": f"Question {i}?", "cluster": i // 10} for i in (10, 11, 30)]
        unseen = write(tmp_path / "raw" / "unseen.jsonl", rows)
        assert run(tmp_path, world[1] | {"unseen_prompts": [unseen]}).returncode == 0
        found = outputs(tmp_path)
        marked = [p for p in found["validation"] if p.unseen]
        assert marked == found["validation"][-2:]
        assert [(p.prompt, p.cluster) for p in marked] == [
            ("Question 10?", "1"),
            ("Question 11?", "1"),
        ]
        ids = {p.prompt_id for p in marked}
        assert not ids & {p.prompt_id for p in found["d1"] + found["d2"]}
        assert not ids & {r.prompt_id for r in found["ratings"] if r.split == "train"}
        counts = sidecar(tmp_path, "validation")
        assert (counts["prompts"], counts["unseen_prompts"]) == (7, 2)
        assert counts["counts"] == {"read": 10, "kept": 9, "dropped": {"duplicate": 1}}

    def test_another_seed_splits_differently_and_rates_equally(self, prepared, world, tmp_path):
        assert run(tmp_path, world[1] | {"prompts_per_half": 10}, seed=1).returncode == 0
        found = outputs(tmp_path)
        assert found["ratings"] == prepared[1]["ratings"]
        assert len(found["d1"]) == len(found["d2"]) == 10
        assert {p.prompt_id for p in found["d1"]} != {p.prompt_id for p in prepared[1]["d1"]}


TABLE = {
    "name": "mine",
    "format": "table",
    "attributes": {
        "quality": {"column": "stars", "from": [1, 5]},
        "likes": {"column": "likes", "from": "rank"},
    },
}


class TestTables:
    @pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
    def test_reward_model_only(self, tmp_path, kind):
        import pandas

        rows = pandas.DataFrame(
            {
                "prompt": ["a", "b", "c"],
                "response": ["x", "y", "z"],
                "stars": [5.0, None, 1.0],
                "likes": [7, 7, 900],
            }
        )
        path = tmp_path / f"mine.{kind}"
        if kind == "csv":
            rows.to_csv(path, index=False)
        elif kind == "parquet":
            rows.to_parquet(path)
        else:
            rows.to_json(path, orient="records", lines=True)
        result = run(tmp_path, {"ratings": [{**TABLE, "train": {"path": str(path)}}]})
        assert result.returncode == 0, result.stderr
        found = outputs(tmp_path)
        third = pytest.approx(100 / 3)
        assert [r.attributes for r in found["ratings"]] == [
            {"quality": 100, "likes": third},
            {"likes": third},
            {"quality": 0, "likes": pytest.approx(250 / 3)},
        ]
        assert found["d1"] == found["d2"] == found["validation"] == []


class TestErrors:
    def failure(self, folder: Path, data: dict[str, Any]) -> str:
        result = run(folder, data)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert not (folder / "ratings.jsonl").exists()
        return result.stderr

    def table(self, folder: Path, content: bytes, name: str = "mine.jsonl") -> dict[str, Any]:
        (folder / name).write_bytes(content)
        return {"ratings": [{**TABLE, "train": {"path": str(folder / name)}}]}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"prompt": "a", "response": "x", "stars": 9, "likes": 1}\n' * 3, ":1: column 'star"),
            (b'{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": \n', ":3: "),
            (b'{"prompt": "a", "response": "x", "star": 1, "likes": 1}\n', "no column 'stars'"),
            (b"", ": no rows"),
        ],
    )
    def test_name_the_file_and_the_line(self, tmp_path, content, message):
        error = self.failure(tmp_path, self.table(tmp_path, content))
        assert f"{tmp_path}/mine.jsonl" in error
        assert message in error

    def test_too_many_bad_rows(self, tmp_path):
        good = b'{"prompt": "a", "response": "x", "stars": 3, "likes": 1}\n'
        data = self.table(tmp_path, good * 9 + good.replace(b'"x"', b'""'))
        error = self.failure(tmp_path, data)
        assert "data.ratings: mine: dropped 1 of 10 rows ({'empty response': 1})" in error
        assert "mine.jsonl:10: dropped (empty response)" in error

    def test_bad_data_option(self, tmp_path):
        assert "--data: " in self.failure(tmp_path, {"ratings": 3})

    def test_prompts_without_ratings(self, world, tmp_path):
        data = world[1] | {"ratings": world[1]["ratings"][:1]}
        result = run(tmp_path, data)
        assert result.returncode == 2
        assert "data.train_prompts: dropped" in result.stderr
        assert "no rated response in ultrafeedback" in result.stderr


def test_help_is_light():
    heavy = "torch", "transformers", "pandas", "numpy", "datasets", "pyarrow"
    code = f"import sys, scripts.prepare_data; print(*sorted(set({heavy}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=CLONE, capture_output=True, text=True)
    assert result.stdout == "\n"


def test_the_judges_share_is_of_prompts(world, tmp_path):
    _, data = world
    splits: dict[str, dict[str, str]] = {}
    for name, share, seed in [("none", 0, 0), ("some", 0.4, 0), ("other", 0.4, 1)]:
        (tmp_path / name).mkdir()
        result = run(tmp_path / name, data, seed, f"--judge-share={share}")
        assert result.returncode == 0, result.stderr
        ratings = read_jsonl(tmp_path / name / "ratings.jsonl", Rating)
        splits[name] = {}
        for rating in ratings:  # all ratings of a prompt, in all data sets
            assert splits[name].setdefault(rating.prompt_id, rating.split) == rating.split
    before = splits["none"]
    assert "judge" not in before.values()
    for name in ("some", "other"):
        judges = {prompt for prompt, split in splits[name].items() if split == "judge"}
        assert 5 <= len(judges) <= 20  # of 34
        assert {before[prompt] for prompt in judges} == {"train"}
        rest = before.keys() - judges
        assert {p: splits[name][p] for p in rest} == {p: before[p] for p in rest}
    assert splits["some"] != splits["other"]
    assert "the judge's" in (tmp_path / "some/ratings.jsonl.meta.json").read_text()
    # The prompts that policies are trained on do not depend on it.
    assert (tmp_path / "some/d1.jsonl").read_bytes() == (tmp_path / "none/d1.jsonl").read_bytes()
