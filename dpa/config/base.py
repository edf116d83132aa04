"""What all sections of the configuration share."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

RepositoryKind = Literal["model", "dataset"]


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit's full hash, and not a branch or a tag, which may move."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


Fraction = Annotated[float, Field(ge=0, le=1)]


#: No run can have more of anything; beyond, arithmetic on sizes overflows.
MOST = 10**12

Positive = Annotated[int, Field(gt=0, le=MOST)]


Seed = Annotated[int, Field(ge=0)]


def check_temperature(value: float) -> float:
    """A temperature that samples what it says. Raises ValueError for others."""
    if 0 < value < 0.01 or value > 100:
        raise ValueError(
            "give 0 (greedy) or a value between 0.01 and 100; divided by others, logits overflow "
            "or are all alike"
        )
    return value


#: Below 0.01 vLLM silently takes 0.01; far below, a division is infinite.
Temperature = Annotated[float, Field(ge=0), AfterValidator(check_temperature)]


#: The name of an output, which stands in lists with commas on command lines, and in file headers.
OutputName = Annotated[str, Field(pattern=r"^[^\s,{}]+( [^\s,{}]+)*$", max_length=100)]


#: A hub model at a commit: code on a branch may be another tomorrow.
PinnedModel = Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}$")]


class Section(BaseModel):
    """A section of the configuration: no unknown keys, no missing keys, no change after loading.

    Keys of lists' items and of null sections have no line in config.yaml: the string below such a
    field is its description in docs/configuration.md.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values(cls, values: Any) -> Any:
        """A key that takes numbers does not take true and false, which Python counts as 1 and 0."""
        for key, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(key)
            if isinstance(value, bool) and field and "bool" not in str(field.annotation):
                raise ValueError(f"{key}: {str(value).lower()} is not a number; give one")
        return values


class ModelConfig(Section):
    """A model: a folder or hub repository (with its commit), or null to make one."""

    kind: ClassVar[RepositoryKind] = "model"

    path: str | None
    revision: str | None
