"""benchmarks.comparison_tables and benchmarks.neighbouring_directions: their numbers by hand."""

import pandas as pd
import pytest

from benchmarks.comparison_tables import means, seeds_won
from benchmarks.neighbouring_directions import (
    answers,
    direction_at,
    markdown_table,
    neighbours_of,
)
from dpa.records import Prompt, ScoredSample


def test_seeds_won_with_the_probability_of_improvement():
    rows = [
        ("SFT", "mean_vr", "r", 0, 2, 2, 0.95),
        ("SFT", "mean_vr", "r", 1, 2, 2, 0.95),
        ("SFT", "mean_vr", "gold", 0, 1, 2, 0.5),
        ("SteerLM", "hypervolume", "r", 0, 2, 2, 1.0),
    ]
    columns = ["method", "measure", "by", "seed", "wins", "seeds", "probability"]
    header, _, sft, steerlm = seeds_won(pd.DataFrame(rows, columns=columns)).splitlines()
    assert header == (
        "| against | hypervolume | hypervolume (gold) | mean v·r | mean v·r (gold) "
        "| worst direction's regret | worst direction's regret (gold) |"
    )
    assert sft == "| SFT | – | – | 2 of 2, 0.95 | 1 of 2, 0.50 | – | – |"
    assert steerlm.startswith("| SteerLM | 2 of 2, 1.00 | – |")


def test_means_with_standard_errors():
    table = pd.DataFrame(
        {
            "method": ["DPA", "SFT"], "mean_vr": [55.56, 4.86], "mean_vr_se": [0.36, 1.13],
            "hypervolume": [62.03, None], "hypervolume_se": [None, None],
        }
    )  # fmt: skip
    _, _, dpa, sft = means(table).splitlines()
    assert dpa.startswith("| DPA | 62.0 | – | 55.6 ± 0.4 | – |")
    assert sft.startswith("| SFT | – | – | 4.9 ± 1.1 | – |")


def test_neighbours_are_on_both_sides():
    assert neighbours_of(45.0, 5.0) == [35.0, 40.0, 45.0, 50.0, 55.0]
    assert direction_at(-90.0) == pytest.approx([0, -1])


def test_the_answer_is_the_best_of_its_group_and_gold_judges_it():
    texts = {
        name: Prompt(prompt_id=name, prompt=name, source="t", unseen=name == "u") for name in "pu"
    }

    def scored(prompt: str, index: int, reward: float) -> ScoredSample:
        return ScoredSample(
            prompt_id=prompt, direction_index=index, direction=[1.0, 0.0], sample_index=0, seed=1,
            response=f"{index}", finish_reason="stop", prompt_tokens=1, response_tokens=1,
            attributes={}, rewards=[reward, 0.0],
        )  # fmt: skip

    # Index 2 is of another group, and the unseen prompt counts nowhere.
    samples = [scored("p", 0, 40), scored("p", 1, 60), scored("p", 2, 90), scored("u", 1, 99)]
    found = answers(samples, range(2), [1.0, 0.0], texts, lambda prompt, text: [int(text) + 7, 0])
    assert found == (60, 8)


def test_the_gain_of_neighbours_is_paired():
    rows = [
        (45.0, "own", 50, 40), (45.0, "neighbours", 52, 44),
        (45.0, "own", 60, 50), (45.0, "neighbours", 64, 54),
        (-90.0, "own", 1, 1), (-90.0, "neighbours", 1, 0),
    ]  # fmt: skip
    found = pd.DataFrame(rows, columns=["degrees", "way", "r", "gold"])
    assert markdown_table(found).splitlines()[2:] == [
        "| 45° | 55.0 ± 5.0 | 58.0 ± 6.0 | 45.0 ± 5.0 | 49.0 ± 5.0 | 4.0 |",
        "| −90° | 1.0 | 1.0 | 1.0 | 0.0 | −1.0 |",
    ]
