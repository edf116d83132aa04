"""An experiment on ratings of one's own, of which prepare_data runs in seconds."""

import json
from pathlib import Path

import yaml

RATINGS = "mine.jsonl"
#: What prepare_data makes; the rest of the experiment is planned only.
TARGET = "results/mine/data/ratings.jsonl"


def add_own_data(folder: Path, rows: int = 8, **mapping: object) -> Path:
    """Write `mine.jsonl`, and `mine.yaml` with an experiment on it; `mapping` adds to its table."""
    (folder / RATINGS).write_text("".join(map(row, range(rows))))
    ratings = {
        "name": "mine", "format": "table", "train": {"path": RATINGS},
        "attributes": {"mine-score": {"column": "score", "from": [0, 100]}}, **mapping,
    }  # fmt: skip
    experiment = {
        "data": {"ratings": [ratings], "original_responses": "mine"},
        "reward_model": {"attributes": ["mine-score"]},
        "trainer": {"bf16": False},
        "base_model": {"scratch": {"max_positions": 4096}},
        "sampling": {"engine": "transformers", "max_new_tokens": 50, "max_prompt_tokens": 50},
        "alpacaeval": None,
        "rewardbench": None,
        "objectives": [
            {"name": "helpfulness", "outputs": {"mine-score": 1.0}},
            {"name": "verbosity", "outputs": {"mine-score": -1.0}},
        ],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(experiment))
    return folder


def row(number: int, response: str = "Yes.") -> str:
    """A line of the file."""
    content = {"id": f"row-{number:06}", "prompt": f"Is it {number}?", "response": response}
    return json.dumps({**content, "score": number % 101}) + "\n"


def rated(folder: Path) -> list[str]:
    """The prompts of the ratings that prepare_data has kept."""
    return [json.loads(line)["prompt"] for line in (folder / TARGET).read_text().splitlines()]
