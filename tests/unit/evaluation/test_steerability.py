"""Steerability's measures, worked by hand from scored responses."""

import numpy as np
import pytest

from dpa.artefacts.jsonl import write_jsonl
from dpa.config.steering import ObjectiveConfig
from dpa.evaluation.bootstrap import draw_prompts
from dpa.evaluation.metrics import is_degenerate
from dpa.evaluation.steerability import collapses, dispersions, movements, standard_of
from dpa.evaluation.validation import prompt_rewards
from dpa.records import Prompt, ScoredSample

NAMES = ["helpfulness", "verbosity"]
OBJECTIVES = [
    ObjectiveConfig(name="helpfulness", outputs={"help": 1.0}),
    ObjectiveConfig(name="verbosity", outputs={"length": 1.0}),
]
LONG = "one two three four five"


def sample(prompt, index, direction, outputs, response=LONG, number=0):
    return ScoredSample(
        prompt_id=prompt, direction_index=index, direction=direction, sample_index=number, seed=1,
        response=response, finish_reason="stop", prompt_tokens=1, response_tokens=5,
        attributes=dict(zip(("help", "length", "other"), outputs, strict=True)),
        rewards=list(outputs[:2]),
    )  # fmt: skip


@pytest.fixture
def drawn(tmp_path):
    """SFT's rewards are 40 and 60 by 20 and 40; DPA goes 30 along (1, 0), then 10 along (0, -1)."""
    write_jsonl(
        tmp_path / "prompts.jsonl",
        [Prompt(prompt_id=i, prompt=i, source="t") for i in "ab"],
    )
    write_jsonl(
        tmp_path / "sft.jsonl",
        [
            sample("a", -1, None, (40.0, 20.0, 50.0)),
            sample("a", -1, None, (40.0, 40.0, 50.0), number=1),
            sample("b", -1, None, (60.0, 20.0, 50.0)),
            sample("b", -1, None, (60.0, 40.0, 50.0), number=1),
        ],
    )
    up, terse = [1.0, 0.0], [0.0, -1.0]
    write_jsonl(
        tmp_path / "dpa-1.jsonl",
        [
            sample("a", 0, up, (70.0, 30.0, 90.0), "same answer for both"),
            sample("b", 0, up, (90.0, 30.0, 90.0), "so so so so so so so so"),
            sample("a", 1, terse, (50.0, 20.0, 50.0), "same  answer for both"),
            sample("b", 1, terse, (50.0, 20.0, 50.0), "short answer"),
        ],
    )
    files = [tmp_path / "dpa-1.jsonl", tmp_path / "sft.jsonl"]
    table = prompt_rewards(files, tmp_path / "prompts.jsonl", OBJECTIVES, 0, None)
    return draw_prompts([table])[0]


def test_very_short_and_repetitive_responses():
    assert is_degenerate("no idea")
    assert not is_degenerate("no idea yet")
    # Five runs of four words, all the same.
    assert is_degenerate("so so so so so so so so")
    assert not is_degenerate("the otter swims and the otter eats fish")


def test_standards_are_of_the_sft_policys_responses(drawn):
    standard = standard_of(drawn, NAMES, "r")
    assert standard.mean.tolist() == [50, 30]
    assert standard.sd.tolist() == [10, 10]
    without = drawn._replace(table=drawn.table[drawn.table["method"] == "dpa"])
    assert standard_of(without, NAMES, "r") is None


def test_dispersion_by_hand(drawn):
    standard = standard_of(drawn, NAMES, "r")
    # Standardised, SFT's covariance is the identity.
    assert dispersions(drawn, ("sft", None), NAMES, "r", standard)[0] == pytest.approx(1)
    # DPA's verbosity never varies under a direction.
    assert dispersions(drawn, ("dpa", 1), NAMES, "r", standard)[0] == pytest.approx(0)


def test_collapse_by_hand(drawn):
    found = collapses(drawn, ("dpa", 1))
    # Two of four are degenerate; of two pairs under two directions one is equal but for a space.
    assert found["degenerate_share"][0] == pytest.approx(0.5)
    assert found["equal_share"][0] == pytest.approx(0.5)
    assert np.isnan(collapses(drawn, ("sft", None))["equal_share"]).all()


def test_movement_by_hand(drawn):
    found = movements(drawn, ("dpa", 1))
    # From (50, 30, 50) to (80, 30, 90): 30 along (1, 0, 0), 40 across, 50 in all; then to
    # (50, 20, 50): 10 along (0, -1, 0), nothing across. Typical is 20.
    assert found["miscalibration"][0] == pytest.approx(0.5)
    assert found["side_effects"][0] == pytest.approx(0.8 / 2)
    assert [found[f"turn_{name}"][0] for name in ("help", "length", "other")] == [-30, -10, -40]
    unsteered = movements(drawn, ("sft", None))
    assert unsteered.keys() == found.keys()
    assert np.isnan(unsteered["side_effects"]).all()
