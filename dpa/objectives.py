"""From the reward model's outputs to the objectives that users steer. No torch."""

from collections.abc import Collection, Sequence

from dpa.config.steering import ObjectiveConfig
from dpa.errors import InputError


def objective_rewards(
    attributes: dict[str, float], objectives: Sequence[ObjectiveConfig]
) -> list[float]:
    """One reward per objective: the weighted sum of its outputs, on their scale (0-100).

    Paper, section 3.1 and appendix A: helpfulness is the mean of four outputs, verbosity is one.
    Raises InputError when an objective names an output that the reward model does not have.
    """
    return [
        round(sum(weight * _output(attributes, o, name) for name, weight in o.outputs.items()), 4)
        for o in objectives
    ]


def check_outputs(objectives: Sequence[ObjectiveConfig], names: Collection[str], path: str) -> None:
    """Raise InputError when an objective uses an output that the reward model does not have."""
    for objective in objectives:
        if unknown := sorted(set(objective.outputs) - set(names)):
            raise InputError(
                f"{path}: objectives: {objective.name} uses {unknown}, which the reward model does "
                f"not have (it has {list(names)}); correct objectives in the configuration"
            )


def _output(attributes: dict[str, float], objective: ObjectiveConfig, name: str) -> float:
    if name not in attributes:
        raise InputError(
            f"objectives: {objective.name} uses {name!r}, which the reward model does not have "
            f"(it has {sorted(attributes)})"
        )
    return attributes[name]
