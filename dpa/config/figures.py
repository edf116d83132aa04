"""What figures show, and how they are drawn."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dpa.config.base import Section
from dpa.registry import METHODS

#: The report shows figures in this format.
SHOWN = "png"


class FigureStyleConfig(Section):
    """Size, formats and matplotlib settings of all figures."""

    width: Annotated[float, Field(ge=3, le=20)]
    """Inches."""
    formats: list[Literal["pdf", "svg", "png"]]
    dpi: Annotated[int, Field(ge=50)]
    title: bool
    rcparams: dict[str, Any]

    @field_validator("formats")
    @classmethod
    def _shown(cls, formats: list[str]) -> list[str]:
        if SHOWN not in formats or len(set(formats)) != len(formats):
            raise ValueError(f"each format once, with {SHOWN}, which the report shows")
        return formats

    def title_of(self, text: str) -> str:
        """The text as a title, or none."""
        return text if self.title else ""


class GivenPointsConfig(Section):
    """Points of a method that is not ours."""

    label: Annotated[str, Field(pattern=r"^[^\s_$][^$\n]{0,39}$")]
    """A legend shows neither `_x` nor, as it is, `$x$`."""
    file: Annotated[str, Field(min_length=1)]
    """CSV or parquet, a row per point."""


class FiguresConfig(Section):
    published: bool
    uncertainty: Literal["ellipses", "bars", "none"]
    extra: list[GivenPointsConfig]
    prompts: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    style: FigureStyleConfig

    @field_validator("extra")
    @classmethod
    def _told_apart(cls, extra: list[GivenPointsConfig]) -> list[GivenPointsConfig]:
        labels = [given.label for given in extra]
        known = [method.label for method in METHODS.values()]
        if len({*labels, *known}) != len(labels) + len(known):
            raise ValueError("each label once, and none of a method of ours")
        return extra
