"""Find my direction: simulated users are found, intervals cover, and the next pair tells most."""

import json
import math
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.find_direction import find_user
from dpa.directions import degrees_between, from_degrees
from dpa.errors import InputError
from dpa.serving.fit_direction import DirectionPosterior, read_comparisons
from scripts.fit_direction import app
from tests.support.tiny_models import PlainModel, make_reward_model

ARC = {"distribution": "arc", "from_degrees": -45, "to_degrees": 0}
WEDGE = {"distribution": "wedge", "from_degrees": -45, "to_degrees": 45}
#: Of the quickstart's samples of dpa/iter4, within a prompt: standard deviations of the rewards,
#: and their correlation.
SPREAD, TOGETHER = (17.0, 24.0), 0.7


def find_users(distribution: dict, users: int, objectives: int) -> tuple[np.ndarray, np.ndarray]:
    """How far each is found from what they mean, and their intervals, in degrees."""
    spread = np.array([*SPREAD, *SPREAD[:1] * (objectives - 2)])
    found = []
    for user in range(users):
        shared, own = np.random.default_rng([user, 1]).standard_normal((2, 60, objectives))
        rewards = math.sqrt(TOGETHER) * shared[:, :1] + math.sqrt(1 - TOGETHER) * own
        differences = math.sqrt(2) * spread * rewards
        found.append(find_user(distribution, user, differences, differences))
    off, interval = np.array(found).T
    return off, interval


@pytest.mark.slow
def test_of_200_users_nine_in_ten_are_found_within_5_degrees():
    """One click in ten is wrong."""
    off, interval = find_users(ARC, 200, 2)
    assert (off <= 5).mean() >= 0.9
    assert (off <= interval).mean() >= 0.9
    assert np.median(interval) < 5


@pytest.mark.slow
def test_three_objectives_are_found_in_angle():
    """Floors are half as good as what was measured: a median of 6.2 degrees, 11 in nine of ten."""
    off, interval = find_users(WEDGE, 20, 3)
    assert np.median(off) <= 12
    assert np.quantile(off, 0.9) <= 22
    assert (off <= interval).mean() >= 0.8


def test_clicks_move_the_fit_and_narrow_the_interval():
    posterior = DirectionPosterior(ARC)
    before = posterior.fit()
    assert before.angle == pytest.approx(-22.5, abs=0.1)
    assert str(before) == "you are at -22° ± 20° after 0 clicks"
    for _ in range(8):  # longer and no better is what they never want
        posterior.add_click([-1.0, -10.0])
    terse = posterior.fit()
    assert terse.angle < -25
    assert terse.degrees < before.degrees
    assert degrees_between(terse.direction, from_degrees(terse.angle)) < 0.01


def test_a_lapse_does_not_rule_anything_out():
    """One click against ten that agree, at a difference that nobody would miss."""
    posterior = DirectionPosterior(ARC)
    for sign in (1, 1, -1, 1, 1, 1, 1, 1, 1, 1, 1):
        posterior.add_click(sign * np.array([10.0, 40.0]))  # from -14 degrees up
    assert -14 < posterior.fit().angle < 0


def test_the_next_pair_tells_most():
    posterior = DirectionPosterior(ARC)
    same, certain, telling = [0.0, 0.0], [40.0, -40.0], [20.0, 48.0]  # the last turns at -22.6
    bits = posterior.information(np.array([same, certain, telling]))
    assert bits[0] == pytest.approx(0, abs=1e-9)
    assert bits[2] > 5 * bits[1] >= 0
    # Which of the two answers is the first does not matter.
    assert posterior.information(-np.array([telling])) == pytest.approx(bits[2:])


def test_one_direction_is_refused():
    with pytest.raises(InputError, match="one direction: nothing to be found"):
        DirectionPosterior({"distribution": "fixed", "direction": [0.8, -0.6]})


OBJECTIVES = [{"name": "good", "outputs": {"a": 1.0}}, {"name": "long", "outputs": {"b": 0.5}}]


@pytest.fixture
def comparisons(tmp_path):
    lines = [
        {"prompt": "Describe the otter.", "a": f"It swims {n} times.", "b": "It is an otter " * n}
        for n in range(1, 7)
    ]
    for line in lines[:3]:
        line["preferred"] = "a"
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(comparisons, model, *options):
    arguments = ["--comparisons", str(comparisons), "--reward-model", str(model),
                 "--objectives", json.dumps(OBJECTIVES), *options]  # fmt: skip
    return CliRunner().invoke(app, arguments)


def test_the_command_line_says_where_you_are_and_what_to_judge_next(comparisons, tmp_path):
    model = make_reward_model(tmp_path / "reward_model", names=["a", "b"])
    done = run(comparisons, model)
    assert done.exit_code == 0, done.output
    said = re.fullmatch(
        r"you are at (-?\d+)° ± \d+° after 3 clicks\n"
        r"--direction (\S+),(\S+)\njudge next: .*mine\.jsonl:(\d)\n",
        done.stdout,
    )
    assert said, done.stdout
    plain, posterior = PlainModel(model), DirectionPosterior(ARC)
    pairs = read_comparisons(comparisons)
    differences = np.array(
        [
            (plain.score(pair.prompt, pair.a) - plain.score(pair.prompt, pair.b)).numpy()
            for pair in pairs
        ]
    ) * [1.0, 0.5]
    for difference in differences[:3]:
        posterior.add_click(difference)
    fit = posterior.fit()
    assert f"{fit.angle:.0f}" == said[1]
    assert [float(said[2]), float(said[3])] == pytest.approx(fit.direction, abs=2e-3)
    assert int(said[4]) == 4 + posterior.information(differences[3:]).argmax()


def test_mistakes_are_named_before_a_model_is_loaded(comparisons, tmp_path):
    missing = tmp_path / "none"
    wedge = json.dumps(WEDGE)
    assert "weigh 3 objectives" in str(run(comparisons, missing, "--directions", wedge).exception)
    comparisons.write_text('{"prompt": "a", "a": "b", "b": "c", "preferred": "d"}\n')
    assert "mine.jsonl:1: " in str(run(comparisons, missing).exception)
    comparisons.write_text("")
    assert "mine.jsonl: is empty; give lines" in str(run(comparisons, missing).exception)
