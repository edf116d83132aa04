"""Saving a model: the one place where configuration, generation config and tokenizer are written.

transformers loads more than it saves. What is harmless in a generation config is repaired, for it
would refuse to save a model after all of its training; the rest is found by preflight, which saves
these parts before.
"""

from pathlib import Path
from typing import Any

from dpa.errors import InputError
from dpa.runtime.log import log

#: Keys that have no effect unless tokens are sampled (do_sample), and unless beams are searched.
SAMPLING_KEYS = (
    "temperature", "top_p", "min_p", "top_h", "typical_p", "top_k", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip
BEAM_KEYS = ("early_stopping", "length_penalty")
#: Keys that have no effect without a cache.
CACHE_KEYS = ("cache_implementation", "cache_config")


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """A folder that plain transformers loads."""
    repair_generation(getattr(model, "generation_config", None), str(folder))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def repair_generation(generation: Any, name: str) -> None:
    """Unset what has no effect in a generation config, where it keeps it from being saved.

    Vicuna's has a temperature without do_sample. What it generates stays the same. None is no
    config. Raises InputError when it cannot be saved all the same.
    """
    if generation is None or _refused(generation) is None:
        return
    unused: list[str] = []
    if generation.do_sample is not True:
        unused += SAMPLING_KEYS
    if generation.num_beams in (None, 1):
        unused += BEAM_KEYS
    if generation.use_cache is False:
        unused += CACHE_KEYS
    if generation.return_dict_in_generate is not True:
        unused += generation.extra_output_flags
    if (generation.pad_token_id or 0) < 0:  # older Llamas have -1 for none
        unused.append("pad_token_id")
    found = [key for key in unused if getattr(generation, key, None) is not None]
    for key in found:
        setattr(generation, key, None)
    if reason := _refused(generation):
        raise InputError(
            f"{name}: its generation_config.json cannot be saved: {reason}; correct it in a copy "
            "of the folder"
        )
    log.info("%s: %s in generation_config.json: without effect, left out", name, ", ".join(found))


def _refused(generation: Any) -> str | None:
    """Why transformers would not save a generation config."""
    try:
        generation.validate(strict=True)
    except (ValueError, TypeError) as error:
        return f"{' '.join(str(error).split()):.300}"
    return None
