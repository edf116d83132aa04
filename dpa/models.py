"""Loading checkpoints and tokenizers: whatever is wrong with one is a message that names it.

No torch is imported here, so that tokenizers can be loaded without it.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from dpa.errors import InputError

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")

REMEDY = (
    "give a complete checkpoint folder (make it again, or copy it again), or a hub id with its "
    "revision, downloaded beforehand for a machine without internet"
)


def load_tokenizer(path: Path | str, revision: str | None) -> Any:
    """A checkpoint's tokenizer. Raises InputError when there is none that can be loaded."""
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, path, revision, "tokenizer")


def load_checkpoint_config(path: Path | str, revision: str | None) -> Any:
    """A checkpoint's config.json. Raises InputError when there is none that can be loaded."""
    from transformers import AutoConfig

    return _loaded(AutoConfig, path, revision, "configuration")


def load_model(kind: Any, path: Path | str, revision: str | None, **options: Any) -> Any:
    """A model by its class (`AutoModelForCausalLM`, ...) with all of its weights.

    Raises InputError when weights are broken or of another shape, and when some are missing:
    transformers would make them up at random and say so in a warning only.
    """
    model, report = _loaded(kind, path, revision, "weights", output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]):
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{path}: the checkpoint lacks {len(missing)} of the tensors of a "
            f"{type(model).__name__} ({listed}); {REMEDY}"
        )
    return model


def _loaded(kind: Any, path: Path | str, revision: str | None, what: str, **options: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(path, revision=revision, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        text = " ".join(str(error).split())[:300] or repr(error)
        if not Path(path).exists() and not HUB_ID.fullmatch(str(path)):
            text = "no such folder"
        raise InputError(f"{path}: cannot load the {what}: {text}; {REMEDY}") from None


def check_chat_template(tokenizer: Any) -> None:
    """Raise InputError when the chat template cannot lay out a conversation."""
    _render(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])


@cache
def check_system_prompt(tokenizer: Any) -> None:
    """Raise InputError when the chat template refuses a system prompt, or leaves it out silently.

    The system prompt is what carries a direction.
    """
    system = "A system prompt of this pipeline."
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "a"}]
    if system not in _render(tokenizer, messages):
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template leaves the system prompt out, which "
            "carries the direction; choose a model whose template has one, or change it"
        )


def _render(tokenizer: Any, messages: list[dict]) -> str:
    import jinja2

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False)
    except jinja2.TemplateError as error:
        line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template fails{line}: {error}; choose a model "
            "whose template takes system, user and assistant turns, or change it"
        ) from None
