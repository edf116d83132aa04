"""benchmarks.real_text at toy size: one command makes all pieces, once, and their tables."""

import json

import pandas as pd
import pytest

from benchmarks import real_text
from dpa.errors import InputError

ANIMALS = ("otter", "badger", "fox")
PLACES = "\n".join(
    f"<!-- benchmarks.real_text.{kind} -->\n<!-- end -->" for kind in ("condition", "reward")
)


def responses(animal):
    yield f"The {animal} lives.", 0.9
    yield f"Sure, I can help. The {animal} lives close to rivers. The {animal} feeds on roots.", 0.4


@pytest.fixture
def tables(tmp_path):
    rows = [
        {"instruction": f"Describe the {animal}.", "output": text, "gpt4_preference": preference}
        for animal in ANIMALS
        for text, preference in responses(animal)
    ]
    for name, some in (("train", rows[:4]), ("validation", rows[4:])):
        pd.DataFrame(some).to_parquet(tmp_path / f"{name}.parquet")
    return {name: tmp_path / f"{name}.parquet" for name in ("train", "validation")}


@pytest.mark.slow
def test_one_command_makes_every_piece_once(tiny_policy, tables, tmp_path, monkeypatch, capsys):
    document = tmp_path / "real-text.md"
    document.write_text(PLACES)
    monkeypatch.setattr(real_text, "DOCUMENT", document)
    monkeypatch.setattr(real_text, "ROWS", (2, 4))
    monkeypatch.setattr(real_text, "VARIED", 2)
    monkeypatch.setattr(real_text, "VARIANTS", ({"lora_rank": 2},))
    monkeypatch.setattr(real_text, "DIRECTIONS", 2)
    output = tmp_path / "pieces"

    def run(**options):
        real_text.run(tiny_policy, **tables, output=output, **options)

    run(minutes=0)
    assert not output.exists()
    run()
    pieces = sorted(path.name for path in output.glob("*.json"))
    assert pieces == [
        "condition-paper-2-0.0002-2-lora2.json",
        "condition-paper-2-0.0002-2.json",
        "condition-paper-4-0.0002-2.json",
        "reward-all-192-0.0001-1.json",
    ]
    [reward] = (json.loads(path.read_text()) for path in output.glob("reward-*.json"))
    assert (reward["rows"], reward["scored"]) == (4, 2)
    text = document.read_text()
    assert "| paper | 2 | 0.0002 | 2 | LoRA 2 |" in text
    assert text.count("| paper |") == 3
    monkeypatch.setattr(real_text, "training_job", None)  # nothing is trained again
    run()
    assert document.read_text() == text


def test_a_table_without_a_choice_is_refused():
    alone = pd.DataFrame({"prompt": ["a"], "instruction": ["a"], "output": ["b"]})
    with pytest.raises(InputError, match="no prompt has two short responses"):
        real_text.choose(alone, 3)
