"""One real rule with hostile file names, and with keys in the environment that nobody may write.

The stages that load models and the judge that is asked over HTTP, with the same keys:
test_methods.py.
"""

import base64
import json
import os

import pytest
import yaml

from tests.support.snakemake_runs import (
    CANARIES,
    carriers,
    copy_repository,
    everything_written,
    snakemake,
)

#: Names that a shell would run if one were let at them unquoted, and that Snakemake would fill in.
TRAIN = "a; rm -rf precious; {policy} {x,[0-9]+}.jsonl"
VALIDATION = "$(touch pwned) `touch pwned` 'x' \"y\" {z} {{z}} & | > pwned *.jsonl"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished prepare_data on files with hostile names: its folder, and all that it printed."""
    folder = copy_repository(tmp_path_factory.mktemp("hostile"))
    (folder / "precious").mkdir()
    (folder / "precious/file").write_text("kept")
    prompts = [f"What is {i}?" for i in range(4)]
    for name, texts in ((TRAIN, prompts[:3]), (VALIDATION, prompts[3:])):
        (folder / name).write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts))
    rows = [{"instruction": p, "output": "Yes.", "score": 50} for p in prompts]
    (folder / "ratings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overlay = {
        "data": {
            "ratings": [
                {
                    "name": "own", "format": "table", "train": {"path": "ratings.jsonl"},
                    "prompt": "instruction", "response": "output",
                    "attributes": {"own-score": {"column": "score", "from": [0, 100]}},
                }
            ],
            "train_prompts": [{"path": TRAIN}],
            "validation_prompts": [{"path": VALIDATION}],
            "original_responses": "own",
        },
        "reward_model": {"attributes": ["own-score"]},
        "trainer": {"bf16": False},
        "base_model": {"scratch": {"max_positions": 4096}},
        "sampling": {"engine": "transformers", "max_new_tokens": 50, "max_prompt_tokens": 50},
        "alpacaeval": None,
        "rewardbench": None,
        "figures": {"prompts": [0]},
        "objectives": [
            {"name": "helpfulness", "outputs": {"own-score": 1.0}},
            {"name": "verbosity", "outputs": {"own-score": -1.0}},
        ],
    }  # fmt: skip
    (folder / "experiments/hostile.yaml").write_text(yaml.safe_dump(overlay))
    patch = pytest.MonkeyPatch()
    for name, value in CANARIES.items():
        patch.setenv(name, value)
    try:
        result = snakemake(
            folder, "--cores", "1", "--printshellcmds", "--verbose",
            "--config", "experiment=hostile", "--", "results/hostile/data/prompts/d1.jsonl",
        )  # fmt: skip
    finally:
        patch.undo()
    return folder, result.stdout


@pytest.mark.slow
def test_a_file_name_is_only_a_name(ran):
    folder, _ = ran
    assert (folder / "precious/file").read_text() == "kept"
    assert not (folder / "pwned").exists()
    lines = (folder / "results/hostile/data/prompts/validation.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == [VALIDATION]
    sidecar = json.loads((folder / "results/hostile/data/prompts/d1.jsonl.meta.json").read_text())
    assert sidecar["inputs"][TRAIN]


def test_no_key_is_written_or_printed(ran):
    folder, printed = ran
    files = dict(everything_written(folder))
    kinds = {"snakemake log": ".snakemake/log", "metadata": ".snakemake/metadata",
             "log": "results/hostile/logs", "sidecar": ".meta.json"}  # fmt: skip
    for kind, part in kinds.items():
        assert any(part in str(path) for path in files), kind
    assert "python -m scripts.prepare_data" in printed  # the command line is there to be searched
    for name, key in CANARIES.items():
        assert carriers(key, [("printed", printed.encode()), *files.items()]) == [], name
    assert not os.environ.get("OPENAI_API_KEY", "").startswith("sk-canary")


@pytest.mark.parametrize("wrap", ["{}", "Bearer {}", "user:{}", "x{}"])
def test_a_key_is_found_in_disguise(tmp_path, wrap):
    key = CANARIES["JUDGE_KEY"]
    text = wrap.format(key).encode()
    for number, content in enumerate((b"a" + text + b"b", base64.b64encode(text), b"nothing")):
        (tmp_path / f".{number}").write_bytes(content)
    (tmp_path / key).write_text("")
    found = carriers(key, everything_written(tmp_path))
    assert {path.name for path in found} == {".0", ".1", key}
