"""Objectives from the outputs of a reward model; numbers worked by hand."""

import pytest

from dpa.config.steering import ObjectiveConfig
from dpa.errors import InputError
from dpa.objectives import objective_rewards


def test_objective_rewards():
    objectives = [
        ObjectiveConfig(name="helpfulness", outputs={"a": 0.25, "b": 0.75}),
        ObjectiveConfig(name="brevity", outputs={"c": -1.0}),
    ]
    attributes = {"a": 40.0, "b": 80.0, "c": 12.5}
    assert objective_rewards(attributes, objectives) == [70.0, -12.5]
    with pytest.raises(InputError, match="helpfulness uses 'b'"):
        objective_rewards({"a": 1.0, "c": 1.0}, objectives)
