"""What figures show, and how they are drawn."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dpa.config.base import Section

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


class FiguresConfig(Section):
    published: bool
    uncertainty: Literal["ellipses", "bars", "none"]
    prompts: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    style: FigureStyleConfig
