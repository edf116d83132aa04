"""A policy in an engine, or the reason why it cannot be loaded."""

from collections.abc import Callable
from typing import Literal

from dpa.config.base import check_temperature
from dpa.config.chat import ModelsConfig
from dpa.errors import InputError
from dpa.generation.engine import Engine, EngineSettings, ignore_tokens
from dpa.models import AnyModel, ModelRef, load_checkpoint_config, read_end_tokens
from dpa.text.tokenization import ChatTokenizer


def load_engine(
    name: Literal["vllm", "transformers"],
    policy: AnyModel,
    *,
    temperature: float,
    max_new_tokens: int,
    max_model_len: int,
    rows_per_batch: int,
    dtype: str | None = None,
    kv_cache_dtype: str = "auto",
    models: ModelsConfig | None = None,
    on_tokens: Callable[[int], None] = ignore_tokens,
) -> Engine:
    """Load a policy into an engine.

    Temperature 0 is greedy. `max_model_len` bounds prompt plus response, in tokens.
    `rows_per_batch` samples are decoded at a time by the transformers engine; vLLM decides for
    itself. `dtype` defaults to precision.computing_dtype, with vLLM to float32 on a CPU and
    bfloat16 on a GPU; `kv_cache_dtype` is vLLM's, `models` how chats become tokens (None: as
    config.yaml says).
    `on_tokens` is called with the number of tokens generated, whenever there are some.

    Raises InputError when the engine is not installed, when the temperature is out of range, when
    the policy cannot be loaded or has no end token, or when `max_model_len` is beyond its
    positions.
    """
    ref = ModelRef.of(policy)
    try:
        check_temperature(temperature)
    except ValueError as error:
        raise InputError(f"temperature {temperature}: {error}") from None
    chat = ChatTokenizer.load(ref, models)
    _check_positions(ref, max_model_len)
    settings = EngineSettings(
        policy=ref,
        chat=chat,
        end_tokens=read_end_tokens(ref, chat.tokenizer),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        max_model_len=max_model_len,
        rows_per_batch=rows_per_batch,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        on_tokens=on_tokens,
    )
    if name == "transformers":
        from dpa.generation.transformers_engine import TransformersEngine

        return TransformersEngine(settings)
    from dpa.generation.vllm_engine import VllmEngine

    return VllmEngine(settings)


def context_length(policy: AnyModel) -> int | None:
    """How many tokens a policy holds, by its config.json; None where that does not say."""
    config = load_checkpoint_config(policy).get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None)


def _check_positions(policy: ModelRef, max_model_len: int) -> None:
    """Raise InputError unless the policy holds the sequences."""
    positions = context_length(policy)
    if positions is not None and max_model_len > positions:
        raise InputError(
            f"{policy.path}: holds {positions} tokens, fewer than max_prompt_tokens + "
            f"max_new_tokens = {max_model_len}; lower sampling.max_prompt_tokens or "
            "sampling.max_new_tokens"
        )
