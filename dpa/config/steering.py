"""What users steer, and from which distribution directions are drawn."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from dpa.config.base import Section
from dpa.directions import check_direction
from dpa.errors import InputError


class ObjectiveConfig(Section):
    """One thing that users steer."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")]
    """Its name in the system prompt."""
    outputs: Annotated[dict[str, float], Field(min_length=1)]
    """Reward-model output -> weight; the weighted sum is the objective's reward (0-100)."""


class ArcConfig(Section):
    """Directions (cos a, sin a) with a uniform between two angles."""

    distribution: Literal["arc"]
    from_degrees: Annotated[float, Field(ge=-90, le=0)]
    to_degrees: Annotated[float, Field(ge=-90, le=90)]

    @model_validator(mode="after")
    def _ordered(self) -> "ArcConfig":
        if self.from_degrees >= self.to_degrees:
            raise ValueError("from_degrees must be below to_degrees")
        return self


class WedgeConfig(Section):
    """Three objectives: v1 > v3 >= 0 and v2 <= 0 (appendix A), both angles uniform."""

    distribution: Literal["wedge"]
    """This distribution."""
    from_degrees: Annotated[float, Field(ge=-90, lt=0)]
    """The lowest angle of the second objective; it goes up to 0."""
    to_degrees: Annotated[float, Field(gt=0, le=45)]
    """The highest angle of the third objective; it goes down to 0."""


class DirichletConfig(Section):
    """Any number of objectives: squared weights are Dirichlet."""

    distribution: Literal["dirichlet"]
    """This distribution."""
    signs: Annotated[list[Literal[-1, 1]], Field(min_length=2)]
    """Sign of each objective's weight."""
    concentration: Annotated[float, Field(gt=0)]
    """1 is uniform over trade-offs; larger values gather around equal weights."""


class FixedConfig(Section):
    """One direction only: what a scalar method optimises; its policy is not conditioned on it."""

    distribution: Literal["fixed"]
    direction: Annotated[list[float], Field(min_length=1)]
    """Unit vector, one weight per objective."""

    @model_validator(mode="after")
    def _unit(self) -> "FixedConfig":
        try:
            check_direction(self.direction, len(self.direction))
        except InputError as error:
            raise ValueError(str(error)) from None
        return self


#: What `directions` may be; scripts also take FixedConfig.
DirectionsConfig = Annotated[
    ArcConfig | WedgeConfig | DirichletConfig, Field(discriminator="distribution")
]
DistributionConfig: TypeAdapter = TypeAdapter(
    Annotated[
        ArcConfig | WedgeConfig | DirichletConfig | FixedConfig,
        Field(discriminator="distribution"),
    ]
)

#: Most directions of an evaluation grid: each is sampled for every prompt, and drawn.
MOST_DIRECTIONS = 1000
#: An evaluation grid: that many directions over the distribution's support, or a list of them.
Grid = (
    Annotated[int, Field(ge=2, le=MOST_DIRECTIONS)]
    | Annotated[list[list[float]], Field(min_length=2, max_length=MOST_DIRECTIONS)]
)
GridConfig: TypeAdapter = TypeAdapter(Grid)
ObjectivesConfig: TypeAdapter = TypeAdapter(list[ObjectiveConfig])


class PenaltyConfig(Section):
    """The mean less the spread."""

    penalty: Annotated[float, Field(gt=0)]
    """Standard deviations of the members' v.r that are taken off their mean."""


#: What a direction maximises where several reward models scored.
Pessimism = Literal["none", "min"] | PenaltyConfig
PessimismConfig: TypeAdapter = TypeAdapter(Pessimism)

#: Whose responses a direction chooses among.
CandidatesName = Literal["own", "neighbours", "all"]
