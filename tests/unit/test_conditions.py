import numpy as np
import pytest

from dpa.conditions import (
    TARGETS,
    Conditions,
    as_condition,
    condition_for,
    curve_places,
    draw_condition,
    evaluated_conditions,
    feasible_curve,
    frontier_targets,
    papers_places,
    read_conditions,
)
from dpa.errors import InputError

ARC = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}


def test_conditions_are_whole_numbers_within_the_scale():
    assert as_condition([49.6, -3, 120, 0.4]) == [50, 0, 100, 0]


class TestFrontierTargets:
    def test_targets_are_means_of_the_best(self):
        rewards = np.array([[90.0, 90.0], [70.0, 10.0], [20.0, 20.0], [10.0, 90.0]])
        targets = frontier_targets(rewards, ARC, 0, top_fraction=0.25)
        assert targets.shape == (TARGETS, 2)
        # (1, 0) wants the first, (1, -1) the second; nobody wants the others.
        assert {tuple(t) for t in targets.tolist()} == {(90.0, 90.0), (70.0, 10.0)}

    def test_averages_the_top_share(self):
        rewards = np.array([[100.0, 0.0], [90.0, 0.0], [0.0, 100.0], [0.0, 100.0]])
        targets = frontier_targets(rewards, ARC, 0, top_fraction=0.5)
        assert targets.tolist() == [[95.0, 0.0]] * TARGETS

    def test_at_least_one_response(self):
        targets = frontier_targets(np.array([[1.0, 2.0], [3.0, 1.0]]), ARC, 0, 0.001)
        assert targets.tolist() == [[3.0, 1.0]] * TARGETS


class TestFeasibleCurve:
    def test_highest_helpfulness_found_with_each_verbosity(self):
        verbosity = np.repeat(np.arange(0.0, 101.0), 2)
        helpfulness = np.where(np.arange(len(verbosity)) % 2, verbosity / 2, 10.0)
        curve = feasible_curve(np.stack([helpfulness, verbosity], axis=1), 3)
        # From percentile 5 to 95, and the best within half a step (22.5) of each.
        assert [v for _, v in curve] == list(range(5, 96))
        assert [curve[0], curve[45], curve[90]] == [[14, 5], [36, 50], [50, 95]]

    def test_a_gap_in_the_data_takes_its_nearest_response(self):
        rewards = np.array([[10.0, 0.0]] * 50 + [[90.0, 100.0]] * 49 + [[55.0, 61.0]])
        curve = feasible_curve(rewards, 11)
        assert [curve[40], curve[61]] == [[55, 40], [55, 61]]

    def test_equal_verbosities(self):
        assert feasible_curve(np.array([[10.0, 30.0], [20.0, 30.0]]), 2) == [[20, 30]]

    @pytest.mark.parametrize("number", [2, 4, 5, 6, 7, 10, 1000])
    def test_as_many_as_directions_and_the_papers_among_them(self, number):
        places, papers = curve_places(number, 5), papers_places(number, 5)
        assert len(places) == len(papers) == number
        assert places == sorted(set(places))
        if number >= 5:
            assert [p for p, is_papers in zip(places, papers, strict=True) if is_papers] == [
                0, 0.25, 0.5, 0.75, 1,
            ]  # fmt: skip
            # No gap has more than one condition more than another.
            assert np.ptp(np.histogram(places[:-1], bins=[0, 0.25, 0.5, 0.75, 1])[0]) <= 1
        curve = [[90 - v, v] for v in range(10, 51)]
        conditions = Conditions(targets=[[1.0, 2.0]], curve=curve)
        found = evaluated_conditions(conditions, number, 5)
        assert (found[0], found[-1]) == ([80, 10], [40, 50])


def test_what_steerlm_is_asked_for_in_a_direction_is_the_best_target():
    known = Conditions(targets=[[80.2, 60.0], [50.0, 10.4]], curve=[])
    assert condition_for(known, [1.0, 0.0]) == [80, 60]
    assert condition_for(known, [0.6, -0.8]) == [50, 10]  # 0.1 against 21.7


class TestDrawCondition:
    CONDITIONS = Conditions(targets=[[80.0, 20.0], [60.0, 5.0]], curve=[])

    def draw(self, sample=0, noise=0.0, uniform_share=0.0, seed=0, prompt="p"):
        return draw_condition(self.CONDITIONS, seed, prompt, sample, noise, uniform_share)

    def test_without_noise_it_is_a_target(self):
        drawn = {tuple(self.draw(i)) for i in range(50)}
        assert drawn == {(80, 20), (60, 5)}

    def test_noise_and_uniform_stay_within_the_scale(self):
        drawn = [self.draw(i, noise=50.0, uniform_share=0.5) for i in range(200)]
        assert all(0 <= value <= 100 for condition in drawn for value in condition)
        assert len({tuple(c) for c in drawn}) > 150

    def test_depends_on_seed_prompt_and_sample(self):
        drawn = [self.draw(noise=8.0), self.draw(1, noise=8.0), self.draw(noise=8.0, seed=1)]
        drawn.append(self.draw(noise=8.0, prompt="q"))
        assert len(set(map(tuple, drawn))) == 4
        assert drawn[0] == self.draw(noise=8.0)


@pytest.mark.parametrize("content", [None, "{}", '{"targets": 1, "curve": []}', "x"])
def test_a_bad_file_names_the_rule_to_rerun(tmp_path, content):
    path = tmp_path / "conditions.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"conditions\.json.*rerun compute_conditions"):
        read_conditions(path)
