"""AlpacaEval 2 and RewardBench: their data, their judges."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from dpa.config.base import ModelConfig, Positive, Section, Temperature
from dpa.config.data import SourceConfig
from dpa.config.steering import Grid
from dpa.registry import JudgedMethod, ReferenceMethod


class JudgeConfig(Section):
    """Who compares a response with AlpacaEval's reference output."""

    kind: Literal["gpt4_turbo", "endpoint", "annotations", "gold"]
    model: str | None = None
    base_url: str | None = None
    key_variable: str | None = None
    annotations: str | None = None
    concurrency: Positive = 5
    max_cost: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _complete(self) -> "JudgeConfig":
        needed = {"endpoint": ("model", "base_url"), "annotations": ("annotations",)}
        for key in needed.get(self.kind, ()):
            if getattr(self, key) is None:
                raise ValueError(f"a judge of kind {self.kind!r} needs {key}")
        return self


class AlpacaEvalConfig(Section):
    reference: SourceConfig
    prompts: Positive
    methods: Annotated[list[JudgedMethod], Field(min_length=1)]
    directions: Grid
    temperature: Temperature
    judge: JudgeConfig
    difficulty: str | None


class PreferenceJudgeConfig(ModelConfig):
    """A Bradley-Terry reward model with one output, or the quickstart's gold scorer."""

    gold: Literal["quickstart"] | None

    @model_validator(mode="after")
    def _one(self) -> "PreferenceJudgeConfig":
        if (self.path is None) == (self.gold is None):
            raise ValueError("give either path or gold, and null for the other")
        return self


class BenchmarkSectionConfig(Section):
    """A section of RewardBench."""

    name: Annotated[str, Field(min_length=1)]
    """Its name in tables."""
    subsets: Annotated[dict[str, Positive], Field(min_length=1)]
    """Each of its subsets with its number of prompts."""


BenchmarkSectionsConfig: TypeAdapter = TypeAdapter(list[BenchmarkSectionConfig])


class RewardBenchConfig(Section):
    data: SourceConfig
    sections: Annotated[list[BenchmarkSectionConfig], Field(min_length=1)]
    methods: Annotated[list[JudgedMethod], Field(min_length=1)]
    reference: ReferenceMethod
    directions: Grid
    temperature: Temperature
    judge: PreferenceJudgeConfig

    @model_validator(mode="after")
    def _distinct(self) -> "RewardBenchConfig":
        names = [section.name for section in self.sections]
        subsets = [subset for section in self.sections for subset in section.subsets]
        if len(set(names)) < len(names) or len(set(subsets)) < len(subsets):
            raise ValueError("sections: names of sections and of subsets must be unique")
        return self
