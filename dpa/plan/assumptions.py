"""The cost model's inputs: types here, numbers and their sources in assumptions.yaml."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from dpa.config.base import ModelConfig, Section
from dpa.config.load import merge, read_yaml
from dpa.config.revisions import LOCKED
from dpa.config.trainer import ScratchConfig
from dpa.errors import InputError
from dpa.runtime.reading import read_json_object
from dpa.training.memory import Shape, shape_of_config

FILE = Path(__file__).with_name("assumptions.yaml")

Amount = Annotated[float, Field(gt=0)]


def _both_ends(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value, value)


def _check_ends(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"{list(ends)}: the lower end comes first")
    return ends


WholeNumber = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]

#: What a device can be busy with; keys of rates.
Stage = Literal["training", "sampling", "scoring"]


class Device(Section):
    """A GPU, or a CPU core."""

    tflops: Amount
    bandwidth_gb_s: Amount
    tokens_per_second: Annotated[dict[Stage, Amount], Field(default_factory=dict)]
    """No stage is faster than this: overheads, which arithmetic and bandwidth do not know."""


#: Least and most that can be expected; one number where it is known.
ShareRange = Annotated[
    tuple[Share, Share], BeforeValidator(_both_ends), AfterValidator(_check_ends)
]
SecondsRange = Annotated[
    tuple[NotNegative, NotNegative], BeforeValidator(_both_ends), AfterValidator(_check_ends)
]


class Utilisation(Section):
    training: ShareRange
    prefill: ShareRange
    scoring: ShareRange
    decode_bandwidth: ShareRange
    decode: ShareRange
    transformers_engine: ShareRange


class Measured(Section):
    training: Amount | None
    sampling: Amount | None
    scoring: Amount | None


class EngineLimits(Section):
    memory_share: Share
    seconds_per_sequence: SecondsRange


class Seconds(Section):
    start_gpu: SecondsRange
    start_cpu: SecondsRange
    per_gb_of_weights: SecondsRange
    light: SecondsRange
    per_row: SecondsRange


class Tokens(Section):
    response: Amount
    system: Amount
    reward_instruction: Amount


class Bytes(Section):
    per_token: Amount
    sampled_record: Amount
    scored_record: Amount


class DataSet(Section):
    """A split of a hub data set: rows, and mean tokens of a row's prompt and of each response."""

    rows: WholeNumber
    responses: WholeNumber = 1
    prompt_tokens: Annotated[float, Field(ge=0)]
    response_tokens: Annotated[float, Field(ge=0)]
    bytes: WholeNumber


class WorldTokens(Section):
    prompt: Amount
    response: Amount
    system: Amount
    reward_instruction: Amount
    document: Amount


class Assumptions(Section):
    devices: dict[str, Device]
    utilisation: Utilisation
    measured: Measured
    engine: EngineLimits
    seconds: Seconds
    tokens: Tokens
    bytes: Bytes
    data_sets: dict[str, dict[str, DataSet]]
    world: WorldTokens
    models: dict[str, Shape]


@cache
def _defaults() -> dict:
    return read_yaml(FILE)


def load_assumptions(overlay: Path | None = None) -> Assumptions:
    """assumptions.yaml, overlaid by a file of one's own. Raises InputError naming wrong keys."""
    values = merge(_defaults(), read_yaml(overlay)) if overlay else _defaults()
    try:
        return Assumptions.model_validate(values)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"{overlay or FILE}: {'; '.join(lines)}") from None


def device(assumptions: Assumptions, name: str) -> Device:
    """A device by its name. Raises InputError listing the known ones."""
    if name not in assumptions.devices:
        raise InputError(
            f"plan.gpu: {name!r} is not among {sorted(assumptions.devices)}; add it under "
            "`devices` in a file for --assumptions"
        )
    return assumptions.devices[name]


def shape_of(model: ModelConfig, scratch: ScratchConfig | None, assumptions: Assumptions) -> Shape:
    """The shape of a model: of a folder, of a named hub model, or of one made from `scratch`.

    Offline: a hub model is looked up under `models`, then in the hub's cache. Raises InputError
    when it is in neither.
    """
    if model.path is None:
        if scratch is None:
            raise InputError("a model without path and without scratch has no shape")
        return _scratch_shape(scratch)
    config = Path(model.path) / "config.json"
    if config.exists():
        return shape_from_config(config)
    if model.path in assumptions.models:
        return assumptions.models[model.path]
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        revision = None if model.revision == LOCKED else model.revision
        cached = try_to_load_from_cache(model.path, "config.json", revision=revision)
    except HFValidationError:
        raise InputError(f"{model.path}: no config.json there, nor is it a hub id") from None
    if isinstance(cached, str):
        return shape_from_config(Path(cached))
    raise InputError(
        f"{model.path}: its shape is not known offline; add it under `models` in a file for "
        "--assumptions, or download its config.json"
    )


def _scratch_shape(scratch: ScratchConfig) -> Shape:
    return Shape(
        vocabulary=scratch.vocab_size,
        hidden=scratch.hidden_size,
        intermediate=scratch.intermediate_size,
        layers=scratch.layers,
        heads=scratch.heads,
        kv_heads=scratch.heads,
        head_dim=scratch.hidden_size // scratch.heads,
        tied=True,
        positions=scratch.max_positions,
    )


def shape_from_config(path: Path) -> Shape:
    """The shape in a config.json of the Llama, Mistral, Gemma or Qwen kind."""
    try:
        return shape_of_config(read_json_object(path))
    except (
        InputError,
        ArithmeticError,
        AttributeError,
        KeyError,
        TypeError,
        ValidationError,
    ) as error:
        raise InputError(
            f"{path}: no shape that plan_run understands ({error!r:.200}); give the model under "
            "`models` in a file for --assumptions"
        ) from None
