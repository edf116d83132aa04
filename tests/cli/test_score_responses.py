"""The scoring scripts: samples, original responses, tables, held-out ratings."""

import csv
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from dpa.artefacts.jsonl import decode_lines, read_jsonl, write_jsonl
from dpa.artefacts.sidecars import read_sidecar
from dpa.config.data import SourceConfig
from dpa.config.steering import ObjectiveConfig
from dpa.data.sources import read_placed_rows
from dpa.errors import InputError
from dpa.records import Annotation, Prompt, Rating, Sample, ScoredSample
from dpa.reward import annotate as annotate_files
from dpa.reward import load, score_table
from dpa.reward import score_samples as score_files
from dpa.reward.inputs import RewardInputs
from dpa.reward.transformers_scorer import TransformersScorer
from dpa.text.prompts import prompt_id
from scripts import annotate_responses, evaluate_reward_model, score_responses
from tests.support.tiny_models import NAMES, WORDS, PlainModel, make_reward_model

OBJECTIVES = [
    ObjectiveConfig(name="helpfulness", outputs={"quality": 0.5, "style": 0.5}),
    ObjectiveConfig(name="verbosity", outputs={"length": 1.0}),
]
OBJECTIVES_JSON = json.dumps([o.model_dump() for o in OBJECTIVES])


def run(script, monkeypatch, **options) -> None:
    """Run a script's command in this process."""
    arguments = []
    for name, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            arguments += [f"--{name.replace('_', '-')}", str(item)]
    monkeypatch.setattr(sys, "argv", [script.__name__, *arguments])
    script.app(standalone_mode=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return make_reward_model(tmp_path_factory.mktemp("reward") / "model")


@pytest.fixture(scope="module")
def broken_model(model, tmp_path_factory) -> str:
    """A model whose scores are NaN for responses with the word `badgers` (weights of one token)."""
    folder = make_reward_model(tmp_path_factory.mktemp("broken") / "model")
    weights = load_file(f"{folder}/model.safetensors")
    token = PlainModel(model).tokenizer(" badgers")["input_ids"]
    assert len(token) == 1
    weights["model.embed_tokens.weight"][token] = torch.nan
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    return folder


def make_samples(prompts: list[Prompt], each: int) -> list[Sample]:
    return [
        Sample(
            prompt_id=prompt.prompt_id,
            direction_index=j % 2,
            direction=[1.0, 0.0],
            sample_index=j // 2,
            seed=i * 100 + j,
            response=" ".join(WORDS[(i * j + 3 * k) % 10] for k in range((5 * j + i) % 13)),
            finish_reason="stop",
            prompt_tokens=5,
            response_tokens=7,
        )
        for i, prompt in enumerate(prompts)
        for j in range(each)
    ]


def make_prompts(count: int) -> list[Prompt]:
    texts = [f"Tell me about {' '.join(WORDS[: i + 1])}." for i in range(count)]
    return [Prompt(prompt_id=prompt_id(text), prompt=text, source="test") for text in texts]


@pytest.fixture
def job(model, tmp_path, monkeypatch):
    """Five prompts with four samples each, two prompts per chunk; runs the pipeline's command."""
    monkeypatch.setattr(score_files, "PROMPTS_PER_CHUNK", 2)
    prompts = make_prompts(5)
    write_jsonl(tmp_path / "d1.jsonl", prompts)

    def score(samples: list[Sample], name: str, reward_model: str = model) -> Path:
        write_jsonl(tmp_path / f"{name}-sampled.jsonl", samples)
        run(
            score_responses,
            monkeypatch,
            reward_model=reward_model,
            samples=tmp_path / f"{name}-sampled.jsonl",
            prompts=tmp_path / "d1.jsonl",
            objectives=OBJECTIVES_JSON,
            tokens_per_batch=300,
            output=tmp_path / f"{name}.jsonl",
        )
        return tmp_path / f"{name}.jsonl"

    score.samples = make_samples(prompts, 4)
    score.prompts = prompts
    return score


# --- Samples ---------------------------------------------------------------------------------


def test_samples_are_scored_in_order(job, model):
    output = job(job.samples, "all")
    scored = read_jsonl(output, ScoredSample)
    plain = PlainModel(model)
    texts = {prompt.prompt_id: prompt.prompt for prompt in job.prompts}
    assert [s.seed for s in scored] == [s.seed for s in job.samples]
    for sample in scored:
        expected = plain.score(texts[sample.prompt_id], sample.response)
        np.testing.assert_allclose(list(sample.attributes.values()), expected, atol=1e-3)
        q, length, style = sample.attributes.values()
        assert list(sample.attributes) == NAMES
        assert sample.rewards == pytest.approx([(q + style) / 2, length], abs=1e-4)
        assert all(round(value, 4) == value for value in sample.attributes.values())
    assert read_sidecar(output)["rows"] == 20


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_together_are_the_whole(job, shards):
    whole = job(job.samples, "all").read_bytes()
    bounds = [4 * (s * 5 // shards) for s in range(shards + 1)]
    parts = [
        job(job.samples[bounds[s] : bounds[s + 1]], f"part{s}").read_bytes() for s in range(shards)
    ]
    assert b"".join(parts) == whole


def test_a_killed_run_resumes(job, tmp_path, monkeypatch):
    whole = job(job.samples, "all").read_bytes()
    scored = []
    real = TransformersScorer._score_chunk

    def counting(dies_in: int | None):
        def score(self, chunk):
            scored.append(len(chunk.groups))
            if len(scored) == dies_in:
                raise RuntimeError("killed")
            return real(self, chunk)

        return score

    monkeypatch.setattr(TransformersScorer, "_score_chunk", counting(dies_in=4))
    with pytest.raises(RuntimeError, match="killed"):
        job(job.samples, "killed")
    assert not (tmp_path / "killed.jsonl").exists()
    monkeypatch.setattr(TransformersScorer, "_score_chunk", counting(None))
    scored.clear()
    assert job(job.samples, "killed").read_bytes() == whole
    assert scored == [1, 1, 1]  # each prompt by itself; those of the first chunk were kept
    # Counts are those of an undisturbed run, not of what was left to do.
    for name in ("scored", "cut", "neutralised", "counts", "records"):
        told = [read_sidecar(tmp_path / f"{run}.jsonl")[name] for run in ("all", "killed")]
        assert told[0] == told[1], name


def test_all_is_looked_at_before_a_gpu_is_taken_and_tokenised_once(job, tmp_path, monkeypatch):
    """A shard of millions of responses is no hang, nor is a model that must be fetched first."""
    events = []

    def noting(name, real):
        def noted(*arguments, **options):
            events.append(name)
            return real(*arguments, **options)

        return noted

    texts = []
    real_ids = RewardInputs._ids
    monkeypatch.setattr(
        RewardInputs, "_ids", lambda self, some: real_ids(self, texts.extend(some) or some)
    )
    monkeypatch.setattr(RewardInputs, "survey", noting("survey", RewardInputs.survey))
    for name in ("download", "take_gpu", "Watchdog", "load_weights"):
        monkeypatch.setattr(load, name, noting(name, getattr(load, name)))
    job(job.samples, "all")
    assert events == ["survey", "download", "take_gpu", "Watchdog", "load_weights"]
    # But for those that could be longer than the 256 tokens that the model holds.
    short = [text for text in texts if len(text) < 250]
    assert len(short) == len(set(short)) > 1
    assert len(set(texts)) == len({(s.prompt_id, s.response) for s in job.samples})


def test_nan_names_file_and_line(job, broken_model, tmp_path):
    job.samples[13].response = "the badgers"
    with pytest.raises(InputError, match=r"bad-sampled\.jsonl:14: NaN"):
        job(job.samples, "bad", broken_model)
    assert not (tmp_path / "bad.jsonl").exists()


def test_foreign_prompt_is_refused(job):
    job.samples[6].prompt_id = "0" * 16
    with pytest.raises(InputError, match=r"foreign-sampled\.jsonl:7: prompt 0000"):
        job(job.samples, "foreign")


def test_empty_shard(job):
    assert job([], "empty").read_bytes() == b""


@pytest.mark.parametrize(
    "given", [(), ("samples",), ("table", "prompts"), ("samples", "prompts", "table")], ids=str
)
def test_samples_need_prompts_and_tables_stand_alone(model, tmp_path, monkeypatch, given):
    files = {name: tmp_path / f"{name}.jsonl" for name in given}
    with pytest.raises(InputError, match="either --samples with their --prompts, or --table"):
        run(
            score_responses,
            monkeypatch,
            reward_model=model,
            output=tmp_path / "out.jsonl",
            **files,
        )


# --- Tables ----------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {
        "id": [3, 1, 2, 9],
        "prompt": ["Hi, you", "Ho", "Hi, you", "Hi, you"],
        "response": ["the otter", "river\nfish", "", "the otter"],
        "note": ["a", "b", "x,y", '"q"'],
    }
)


def write_frame(path: Path, table: pd.DataFrame) -> None:
    if path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)


def read_frame(path: Path) -> pd.DataFrame:
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False)
    return pd.read_parquet(path)


@pytest.mark.parametrize("source", ["in.jsonl", "in.csv", "in.parquet"])
@pytest.mark.parametrize("target", ["out.jsonl", "out.csv", "out.parquet"])
def test_tables_keep_rows_and_order(model, tmp_path, monkeypatch, source, target):
    write_frame(tmp_path / source, TABLE)
    run(
        score_responses,
        monkeypatch,
        reward_model=model,
        table=tmp_path / source,
        output=tmp_path / target,
    )
    scored = read_frame(tmp_path / target)
    assert list(scored) == [*TABLE, *NAMES]
    assert scored["id"].astype(int).tolist() == TABLE["id"].tolist()
    assert scored["note"].tolist() == TABLE["note"].tolist()
    plain = PlainModel(model)
    for row in scored.to_dict("records"):
        expected = plain.score(row["prompt"], row["response"])
        np.testing.assert_allclose([row[name] for name in NAMES], expected, atol=1e-3)
    if (source, target) == ("in.parquet", "out.parquet"):
        assert scored["id"].dtype == TABLE["id"].dtype


def test_chat_turns_and_other_column_names(model, tmp_path, monkeypatch):
    turns = [{"role": "user", "content": "Hi"}]
    write_jsonl(tmp_path / "in.jsonl", [{"q": turns, "a": "far"}, {"q": "Hi", "a": "far"}])
    run(
        score_responses,
        monkeypatch,
        reward_model=model,
        table=tmp_path / "in.jsonl",
        output=tmp_path / "out.csv",
        prompt_column="q",
        response_column="a",
    )
    with open(tmp_path / "out.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert json.loads(first["q"]) == turns
    assert first["quality"] == second["quality"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "response": "b"}, {"prompt": "a"}], r"in\.jsonl:2.*response"),
        ([{"prompt": "a", "response": None}], r"in\.jsonl:1: column 'response' has no text"),
        ([{"prompt": "a", "response": "b", "style": 1}], r"in\.jsonl:1.*\['style'\].*rename"),
        ([], "no rows"),
    ],
)
def test_bad_tables(model, tmp_path, monkeypatch, rows, message):
    write_jsonl(tmp_path / "in.jsonl", rows)
    with pytest.raises(InputError, match=message):
        run(
            score_responses,
            monkeypatch,
            reward_model=model,
            table=tmp_path / "in.jsonl",
            output=tmp_path / "out.jsonl",
        )
    assert not (tmp_path / "out.jsonl").exists()


# --- Original responses and held-out ratings -------------------------------------------------


def make_ratings(prompts: list[Prompt]) -> list[Rating]:
    return [
        Rating(
            prompt_id=prompt.prompt_id,
            prompt=prompt.prompt,
            response=" ".join(WORDS[: (i + 3 * j) % 11]),
            attributes={"quality": 10.0 * j, "length": 5.0 * i},
            dataset="ultrafeedback" if j else "helpsteer",
            split="validation" if i % 2 else "train",
        )
        for i, prompt in enumerate(reversed(prompts))
        for j in range(3)
        if i != 3
    ]


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_annotations_do_not_depend_on_sharding(model, tmp_path, monkeypatch, shards):
    monkeypatch.setattr(score_files, "PROMPTS_PER_CHUNK", 2)
    prompts = make_prompts(7)
    ratings = make_ratings(prompts)
    write_jsonl(tmp_path / "ratings.jsonl", ratings)
    for name, part in (("d1", prompts[:3]), ("d2", prompts[3:6]), ("validation", prompts[6:])):
        write_jsonl(tmp_path / f"{name}.jsonl", part)

    def annotate(count: int) -> bytes:
        paths = [tmp_path / f"{count}-{shard}.jsonl" for shard in range(count)]
        for shard, path in enumerate(paths):
            run(
                annotate_responses,
                monkeypatch,
                reward_model=model,
                ratings=tmp_path / "ratings.jsonl",
                prompts=[tmp_path / f"{name}.jsonl" for name in ("d1", "d2", "validation")],
                dataset="ultrafeedback",
                objectives=OBJECTIVES_JSON,
                shard=shard,
                shards=count,
                output=path,
            )
        return b"".join(path.read_bytes() for path in paths)

    whole = annotate(shards)
    (tmp_path / "whole.jsonl").write_bytes(whole)
    found = read_jsonl(tmp_path / "whole.jsonl", Annotation)
    expected = [
        (rating.prompt_id, rating.response, rating.split)
        for prompt in prompts
        for rating in ratings
        if rating.prompt_id == prompt.prompt_id and rating.dataset == "ultrafeedback"
    ]
    assert [(a.prompt_id, a.response, a.split) for a in found] == expected
    if shards > 1:
        assert annotate(1) == whole


def test_killed_annotations_resume(model, tmp_path, monkeypatch):
    for module in (score_files, annotate_files):  # each has the name, by when it was imported
        monkeypatch.setattr(module, "PROMPTS_PER_CHUNK", 2)
    prompts = make_prompts(7)
    write_jsonl(tmp_path / "ratings.jsonl", make_ratings(prompts))
    write_jsonl(tmp_path / "d1.jsonl", prompts)
    real, scored = TransformersScorer._score_chunk, []

    def annotate(name: str, dies_in: int | None = None) -> Path:
        def counting(self, chunk):
            scored.append(len(chunk.groups))
            if len(scored) == dies_in:
                raise RuntimeError("killed")
            return real(self, chunk)

        scored.clear()
        monkeypatch.setattr(TransformersScorer, "_score_chunk", counting)
        run(
            annotate_responses,
            monkeypatch,
            reward_model=model,
            ratings=tmp_path / "ratings.jsonl",
            prompts=tmp_path / "d1.jsonl",
            dataset="ultrafeedback",
            objectives=OBJECTIVES_JSON,
            shard=0,
            shards=1,
            output=tmp_path / name,
        )
        return tmp_path / name

    whole = annotate("whole.jsonl")
    chunks = list(scored)
    assert len(chunks) == 4
    with pytest.raises(RuntimeError, match="killed"):
        annotate("killed.jsonl", dies_in=3)
    assert not (tmp_path / "killed.jsonl").exists()
    assert annotate("killed.jsonl").read_bytes() == whole.read_bytes()
    assert scored == chunks[2:]
    sidecar = read_sidecar(whole) | {"artefact": "killed.jsonl"}
    assert read_sidecar(tmp_path / "killed.jsonl") == sidecar
    assert sidecar["scored"] == sum(1 for _ in decode_lines(whole, Annotation))


def test_too_many_cut_annotations_stop_before_the_first_is_scored(model, tmp_path, monkeypatch):
    monkeypatch.setenv("DPA_MAX_TRUNCATED_FRACTION", "0.1")
    monkeypatch.setattr(TransformersScorer, "_score_chunk", lambda *_: pytest.fail("scored"))
    prompts = make_prompts(4)
    ratings = make_ratings(prompts)
    for rating in ratings[::2]:
        rating.response = "badgers " * 1000
    write_jsonl(tmp_path / "ratings.jsonl", ratings)
    write_jsonl(tmp_path / "d1.jsonl", prompts)
    with pytest.raises(InputError, match=r"texts were truncated .*limits\.max_truncated_fraction"):
        run(
            annotate_responses,
            monkeypatch,
            reward_model=model,
            ratings=tmp_path / "ratings.jsonl",
            prompts=tmp_path / "d1.jsonl",
            dataset="ultrafeedback",
            objectives=OBJECTIVES_JSON,
            shard=0,
            shards=1,
            output=tmp_path / "out.jsonl",
        )
    assert not (tmp_path / "out.jsonl").exists()


def test_evaluation_writes_the_contracted_columns(model, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "ratings.jsonl", make_ratings(make_prompts(6)))
    run(
        evaluate_reward_model,
        monkeypatch,
        reward_model=model,
        ratings=tmp_path / "ratings.jsonl",
        output_metrics=tmp_path / "metrics.csv",
        output_ranking=tmp_path / "ranking.csv",
        output_predictions=tmp_path / "predictions.parquet",
    )
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    assert list(predictions) == ["attribute", "prompt", "label", "predicted"]
    assert predictions["attribute"].value_counts().to_dict() == {"quality": 6, "length": 6}
    metrics = pd.read_csv(tmp_path / "metrics.csv", index_col="attribute")
    assert list(metrics) == ["n", "pearson", "spearman", "rmse"]
    assert metrics["n"].to_dict() == {"quality": 6, "length": 6, "style": 0}
    ranking = pd.read_csv(tmp_path / "ranking.csv", index_col="attribute")
    assert list(ranking) == ["prompts", "spearman_within_prompt", "pairwise_accuracy"]
    assert ranking["prompts"].to_dict() == {"quality": 2, "length": 0, "style": 0}


def test_evaluation_needs_held_out_ratings(model, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "ratings.jsonl", make_ratings(make_prompts(1)))
    with pytest.raises(InputError, match="no ratings with split validation"):
        run(
            evaluate_reward_model,
            monkeypatch,
            reward_model=model,
            ratings=tmp_path / "ratings.jsonl",
            output_metrics=tmp_path / "metrics.csv",
            output_ranking=tmp_path / "ranking.csv",
            output_predictions=tmp_path / "predictions.parquet",
        )


# --- Tables that are not all of one kind -----------------------------------------------------


def score(tmp_path, monkeypatch, model, rows, target: str, source: str = "in.jsonl") -> Path:
    """A table of the rows, scored; `rows` are dictionaries, or lines of text."""
    path = tmp_path / source
    if isinstance(rows, pd.DataFrame):
        write_frame(path, rows)
    elif isinstance(rows, pa.Table):
        pyarrow.parquet.write_table(rows, path)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join([*lines, ""]))
    run(
        score_responses,
        monkeypatch,
        reward_model=model,
        table=path,
        output=tmp_path / target,
    )
    return tmp_path / target


def columns_read(path: Path) -> list[dict]:
    """The rows of a table as this pipeline reads them, without the scores."""
    rows = [row for _, row in read_placed_rows(SourceConfig(path=str(path)))]
    return [{k: v for k, v in row.items() if k not in NAMES} for row in rows]


PAIR = {"prompt": "Hi, you", "response": "the otter"}
LATE = [
    PAIR | {"n": 1},
    PAIR | {"n": 1.75, "late": "é"},
    PAIR | {"tags": ["a", None]},
    PAIR | {"late": None, "turns": [{"role": "user"}, {"role": "a", "x": 2**62}]},
]


@pytest.fixture
def chunks_of_one(monkeypatch):
    """Every row is in a chunk of its own."""
    monkeypatch.setattr(score_table, "ROWS_PER_CHUNK", 1)


@pytest.mark.usefixtures("chunks_of_one")
@pytest.mark.parametrize("target", ["out.jsonl", "out.csv", "out.parquet", "OUT.PARQUET"])
def test_columns_that_come_late_are_kept(model, tmp_path, monkeypatch, target):
    found = columns_read(score(tmp_path, monkeypatch, model, LATE, target))
    columns = ["prompt", "response", "n", "late", "tags", "turns"]
    if target == "out.jsonl":
        assert found == LATE
        return
    assert [list(row) for row in found] == [columns] * 4
    if target == "out.csv":
        assert [row["n"] for row in found] == ["1", "1.75", "", ""]
        assert json.loads(found[3]["turns"]) == LATE[3]["turns"]
        return
    assert [row["n"] for row in found] == [1, 1.75, None, None]
    assert [row["late"] for row in found] == [None, "é", None, None]
    assert found[2]["tags"] == ["a", None]
    assert found[3]["turns"] == [{"role": "user", "x": None}, {"role": "a", "x": 2**62}]
    frame = pd.read_parquet(tmp_path / target)
    assert frame["n"].tolist()[:2] == [1, 1.75]


UNWRITABLE = [
    ("types change", [PAIR | {"n": 1}, PAIR | {"n": "one"}], "out.parquet", ":2.*'n'.*'one'"),
    ("64 bits", [PAIR | {"n": 1}, PAIR | {"n": 2**64}], "out.parquet", ":2.*'n'.*at most 64 bits"),
    ("64 bits inside", [PAIR | {"n": [2**64]}], "out.parquet", ":1.*'n'.*at most 64 bits"),
    (
        "no float holds it",
        [PAIR | {"n": 1.5}, PAIR | {"n": 2**53 + 1}],
        "out.parquet",
        "'n'.*at most 64 bits",
    ),
    ("a truth value", [PAIR | {"n": True}, PAIR | {"n": 2}], "out.parquet", ":2.*'n'"),
    ("text and turns", [PAIR, PAIR | {"prompt": [{"role": "user", "content": "a"}]}],
     "out.parquet", ":2.*'prompt'"),
    ("infinity", pd.DataFrame([PAIR | {"n": math.inf}]), "out.jsonl", "row 1.*'n' is inf"),
    ("half a character", ['{"prompt": "a", "response": "b", "n": "\\ud800"}'], "out.csv",
     "in.jsonl:1"),
    ("another kind", [PAIR], "out.xlsx", "unknown kind of file"),
    ("no kind", [PAIR], "out", "unknown kind of file"),
    ("compressed", [PAIR], "out.csv.gz", "unknown kind of file"),
    ("a folder", [PAIR], ".", "choose another place"),
]  # fmt: skip


@pytest.mark.usefixtures("chunks_of_one")
@pytest.mark.parametrize(
    ("rows", "target", "message"), [u[1:] for u in UNWRITABLE], ids=[u[0] for u in UNWRITABLE]
)
def test_what_cannot_be_written_is_known_before_weights_are_loaded(
    model, tmp_path, monkeypatch, rows, target, message
):
    unreadable = shutil.copytree(model, tmp_path / "model")
    (unreadable / "model.safetensors").write_bytes(b"not to be read")
    source = "in.parquet" if isinstance(rows, pd.DataFrame) else "in.jsonl"
    with pytest.raises(InputError, match=message):
        score(tmp_path, monkeypatch, unreadable, rows, target, source)
    assert {p.name for p in tmp_path.iterdir()} == {source, "model"}


def test_a_users_own_nan_is_no_fault_of_the_model(model, tmp_path, monkeypatch, caplog):
    rows = pa.Table.from_pylist([PAIR | {"n": 1.0}, PAIR | {"n": math.nan}])
    output = score(tmp_path, monkeypatch, model, rows, "out.jsonl", "in.parquet")
    assert [row["n"] for row in columns_read(output)] == [1.0, None]
    assert "1 NaN are written as null" in caplog.text
    output = score(tmp_path, monkeypatch, model, rows, "out.csv", "in.parquet")
    assert [row["n"] for row in columns_read(output)] == ["1.0", "nan"]


def test_a_carriage_return_ends_no_row(model, tmp_path, monkeypatch):
    rows = [PAIR | {"note": "a\rb", "response": "the\r\notter"}, PAIR | {"note": "c"}]
    output = score(tmp_path, monkeypatch, model, rows, "out.csv")
    assert columns_read(output) == rows
    assert pd.read_csv(output)["note"].tolist() == ["a\rb", "c"]


@pytest.mark.usefixtures("chunks_of_one")
@pytest.mark.parametrize("target", ["out.jsonl", "out.parquet"])
def test_a_killed_table_resumes(model, tmp_path, monkeypatch, caplog, target):
    rows = [PAIR | {"response": " ".join(WORDS[:n])} for n in range(1, 6)]
    whole = score(tmp_path, monkeypatch, model, rows, f"whole-{target}")
    real, done = TransformersScorer._score_chunk, []

    def dies_in_the_third_chunk(self, chunk):
        if len(done) == 2:
            raise RuntimeError("killed")
        done.append(chunk)
        return real(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(TransformersScorer, "_score_chunk", dies_in_the_third_chunk)
        with pytest.raises(RuntimeError, match="killed"):
            score(tmp_path, monkeypatch, model, rows, target)
    assert not (tmp_path / target).exists()

    def counted(self, chunk):
        done.append(chunk)
        return real(self, chunk)

    monkeypatch.setattr(TransformersScorer, "_score_chunk", counted)
    output = score(tmp_path, monkeypatch, model, rows, target)
    assert len(done) == len(rows)
    assert output.read_bytes() == whole.read_bytes()
    resumed, undisturbed = read_sidecar(output), read_sidecar(whole)
    assert resumed | {"artefact": whole.name} == undisturbed
    assert not list(tmp_path.glob("*.partial*"))


def test_a_table_of_several_files_of_a_folder(model, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("a.csv", "B.CSV"):
        pd.DataFrame([PAIR]).to_csv(tmp_path / "in" / name, index=False)
    run(
        score_responses, monkeypatch, reward_model=model, table=tmp_path / "in",
        output=tmp_path / "out.parquet",
    )  # fmt: skip
    assert columns_read(tmp_path / "out.parquet") == [PAIR, PAIR]
