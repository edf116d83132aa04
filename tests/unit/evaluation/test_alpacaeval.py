import json

import pytest

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.config.data import SourceConfig
from dpa.errors import InputError
from dpa.evaluation.alpacaeval import (
    RESULT_COLUMNS,
    export_outputs,
    output_files,
    prepare_alpacaeval,
    result_rows,
)
from dpa.records import Prompt, Sample
from dpa.text.prompts import prompt_id

ROWS = [
    {"dataset": "koala", "instruction": "One?", "output": "1", "generator": "ref"},
    {"dataset": "oasst", "instruction": "Two?", "output": "2", "generator": "ref"},
]


@pytest.fixture
def prompts(tmp_path):
    source = tmp_path / "raw.json"
    source.write_text(json.dumps(ROWS))
    path = tmp_path / "prompts.jsonl"
    prepare_alpacaeval(SourceConfig(path=str(source)), 2, path, tmp_path / "reference.json")
    return path


def sample(instruction: str, index: int, direction=None) -> Sample:
    return Sample(
        prompt_id=prompt_id(instruction), direction_index=index, direction=direction,
        sample_index=0, seed=0, response=f"{instruction} {index}", finish_reason="stop",
        prompt_tokens=1, response_tokens=1,
    )  # fmt: skip


def test_instructions_become_prompts_and_references_keep_their_format(prompts, tmp_path):
    found = read_jsonl(prompts, Prompt)
    assert [(p.prompt, p.source) for p in found] == [("One?", "koala"), ("Two?", "oasst")]
    assert json.loads((tmp_path / "reference.json").read_text()) == [
        {key: row[key] for key in ("instruction", "output", "generator", "dataset")} for row in ROWS
    ]
    with pytest.raises(InputError, match=r"2 instructions, alpacaeval\.prompts says 805"):
        prepare_alpacaeval(
            SourceConfig(path=str(tmp_path / "raw.json")), 805, prompts, tmp_path / "reference.json"
        )


def test_outputs_are_in_alpacaevals_format_and_order(prompts, tmp_path):
    steered = [
        sample(i, d, [1.0, 0.0] if d == 0 else [0.6, -0.8])
        for i in ("Two?", "One?")
        for d in (0, 1)
    ]
    write_jsonl(tmp_path / "dpa-2.jsonl", steered)
    write_jsonl(tmp_path / "sft.jsonl", [sample("One?", -1), sample("Two?", -1)])
    sampled = [tmp_path / "dpa-2.jsonl", tmp_path / "sft.jsonl"]
    export_outputs(sampled, prompts, tmp_path / "outputs")
    files = output_files(tmp_path / "outputs")
    assert sorted(files) == ["dpa-2/0", "dpa-2/1", "sft/-1"]
    assert json.loads(files["dpa-2/1"].read_text()) == [
        {"instruction": "One?", "output": "One? 1", "generator": "dpa-2/1", "dataset": "koala"},
        {"instruction": "Two?", "output": "Two? 1", "generator": "dpa-2/1", "dataset": "oasst"},
    ]
    judged = {name: {c: f"{name} {c}" for c in RESULT_COLUMNS} for name in files}
    rows = result_rows(judged, sampled, ["h", "v"], 7)
    assert [(r["method"], r["iteration"], r["direction_index"], r["v_v"]) for r in rows] == [
        ("dpa", 2, 0, 0.0), ("dpa", 2, 1, -0.8), ("sft", None, -1, None),
    ]  # fmt: skip
    assert rows[1]["win_rate"] == "dpa-2/1 win_rate"
    assert {r["seed"] for r in rows} == {7}


def test_a_prompt_without_an_output_is_refused(prompts, tmp_path):
    write_jsonl(tmp_path / "sft.jsonl", [sample("One?", -1)])
    with pytest.raises(InputError, match=r"1 of 2 prompts have no output.*'Two\?'"):
        export_outputs([tmp_path / "sft.jsonl"], prompts, tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()
