import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dpa.directions import (
    check_direction,
    conditioned,
    direction_name,
    evaluation_directions,
    fixed_distribution,
    from_degrees,
    objectives_of,
    sample_direction,
    scalar_reward,
    single_objectives,
)
from dpa.errors import InputError
from dpa.text.prompts import direction_system_prompt, parse_direction

ARC = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}


class TestCheck:
    def test_unit_vectors_pass(self):
        assert check_direction([0.8, -0.6], 2) == [0.8, -0.6]
        assert check_direction((1, 0, 0), 3) == [1.0, 0.0, 0.0]

    def test_a_vector_that_is_not_unit_is_refused_with_the_nearest(self):
        with pytest.raises(InputError, match=r"length 5\.0, .* unit vector: 0\.8,-0\.6$"):
            check_direction([4, -3], 2)

    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4))
    def test_the_advice_is_accepted(self, values):
        assume(abs(math.hypot(*values) - 1) > 1e-3)
        with pytest.raises(InputError, match="nearest unit vector") as caught:
            check_direction(values, len(values))
        advice = [float(v) for v in str(caught.value).rsplit(": ", 1)[1].split(",")]
        assert check_direction(advice, len(values)) == advice

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_values_that_are_not_finite_are_refused(self, value):
        with pytest.raises(InputError, match="not finite"):
            check_direction([value, 0], 2)

    def test_one_weight_per_objective(self):
        with pytest.raises(InputError, match="has 1 weights, expected 2"):
            check_direction([1.0], 2)


class TestLaw:
    def test_directions_are_units_within_the_arc(self):
        drawn = [sample_direction(ARC, 0, 1, "p", i) for i in range(300)]
        angles = [math.degrees(math.atan2(v[1], v[0])) for v in drawn]
        assert all(check_direction(v, 2) for v in drawn)
        assert min(angles) >= -45
        assert max(angles) <= 0
        assert np.histogram(angles, bins=3, range=(-45, 0))[0].min() > 70

    def test_depend_on_every_argument_and_nothing_else(self):
        drawn = [
            sample_direction(ARC, *arguments)
            for arguments in [
                (0, 1, "p", 0),
                (1, 1, "p", 0),
                (0, 2, "p", 0),
                (0, 1, "q", 0),
                (0, 1, "p", 1),
            ]
        ]
        assert len(set(map(tuple, drawn))) == len(drawn)
        assert drawn[0] == sample_direction(ARC, 0, 1, "p", 0)

    def test_the_papers_evaluation_grid(self):
        grid = evaluation_directions(ARC, 10)
        assert len(grid) == 10
        assert grid[0] == [1.0, 0.0]
        assert grid[-1] == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)], abs=1e-6)
        steps = np.diff([math.degrees(math.atan2(v[1], v[0])) for v in grid])
        assert steps == pytest.approx([-5.0] * 9, abs=1e-3)


WEDGE = {"distribution": "wedge", "from_degrees": -45.0, "to_degrees": 45.0}
DIRICHLET = {"distribution": "dirichlet", "signs": [1, -1, 1, -1], "concentration": 1.0}


class TestAnyNumberOfObjectives:
    @pytest.mark.parametrize(
        "distribution",
        [ARC, WEDGE, DIRICHLET],
        ids=lambda distribution: distribution["distribution"],
    )
    def test_draws_and_grid_are_units_of_the_distributions_size_and_round_trip(self, distribution):
        k = objectives_of(distribution)
        names = [f"objective{chr(97 + i)}" for i in range(k)]
        drawn = [sample_direction(distribution, 0, 1, "p", i) for i in range(100)]
        grid = evaluation_directions(distribution, 12)
        assert len({tuple(v) for v in grid}) == 12
        assert grid == evaluation_directions(distribution, 12)
        assert [v[0] for v in grid] == sorted((v[0] for v in grid), reverse=True)
        for v in drawn + grid:
            assert check_direction(v, k) == v
            prompt = direction_system_prompt(names, v)
            assert parse_direction(names, prompt) == pytest.approx(v, abs=0.005 + 1e-9)

    def test_the_wedge_of_appendix_a(self):
        for i in range(300):
            v = sample_direction(WEDGE, 0, 1, "p", i)
            assert v[0] > v[2] >= 0 >= v[1]
            assert math.degrees(math.asin(v[1])) >= -45.0001

    def test_dirichlet_is_uniform_over_trade_offs_and_keeps_the_signs(self):
        drawn = np.array([sample_direction(DIRICHLET, 0, 1, "p", i) for i in range(2000)])
        assert (np.sign(drawn) == [1, -1, 1, -1]).all()
        # Squared weights are Dirichlet(1, 1, 1, 1): mean 1/4, variance 3/80.
        assert (drawn**2).mean(axis=0) == pytest.approx([0.25] * 4, abs=0.02)
        assert (drawn**2).var(axis=0) == pytest.approx([3 / 80] * 4, abs=0.006)

    def test_a_grid_may_be_listed(self):
        listed = [[1, 0, 0], [0.8, 0, 0.6]]
        assert evaluation_directions(WEDGE, listed) == [[1.0, 0.0, 0.0], [0.8, 0.0, 0.6]]
        with pytest.raises(InputError, match="has 2 weights, expected 3"):
            evaluation_directions(WEDGE, [[1, 0]])

    def test_experts_ask_for_one_objective_with_the_distributions_sign(self):
        assert single_objectives(ARC) == [[1.0, 0.0], [0.0, -1.0]]
        assert single_objectives(WEDGE) == [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
        assert np.diag(single_objectives(DIRICHLET)).tolist() == [1, -1, 1, -1]

    def test_a_fixed_direction_is_always_the_same_and_not_told(self):
        distribution = fixed_distribution([0.8, -0.6])
        assert sample_direction(distribution, 0, 1, "p", 0) == sample_direction(
            distribution, 5, 2, "q", 3
        )
        assert evaluation_directions(distribution, 10) == [[0.8, -0.6]]
        assert not conditioned(distribution)
        assert conditioned(ARC)

    def test_names_are_hundredths(self):
        assert direction_name([0.8, -0.6]) == "80_-60"
        assert direction_name([1.0, 0.0, 0.0]) == "100_0_0"


def test_scalar_reward():
    assert scalar_reward([0.8, -0.6], [50, 10]) == pytest.approx(34)
    with pytest.raises(ValueError, match="zip"):
        scalar_reward([1.0], [50, 10])


def test_from_degrees():
    assert from_degrees(-90) == [0.0, -1.0]
