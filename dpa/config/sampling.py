"""How policies generate."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dpa.config.base import Fraction, Positive, Section, Temperature


class SamplingConfig(Section):
    engine: Literal["vllm", "transformers"]
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "int8_per_token_head"]
    temperature: Annotated[Temperature, Field(gt=0)]
    max_new_tokens: Positive
    max_prompt_tokens: Positive
    prompts_per_chunk: Positive
    rows_per_batch: Positive
    max_truncated_fraction: Fraction

    @model_validator(mode="after")
    def _vllm_only(self) -> "SamplingConfig":
        if self.engine == "transformers" and self.kv_cache_dtype != "auto":
            raise ValueError(
                f"kv_cache_dtype: {self.kv_cache_dtype} is vLLM's; set it to auto, or take "
                "engine vllm"
            )
        return self
