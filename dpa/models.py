"""Loading checkpoints and tokenizers: whatever is wrong with one is a message that names it.

A checkpoint is data, not a program: weights are read from safetensors only (a pickle may run
anything), and its own Python code runs only if the configuration's trust_remote_code lists it. No
torch is imported here, so that tokenizers can be loaded without it.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dpa.errors import InputError
from dpa.runtime.run_environment import RunEnvironment

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")

#: Kinds of weights that are pickles.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

REMEDY = (
    "give a complete checkpoint folder (make it again, or copy it again), or a hub id with its "
    "revision, downloaded beforehand for a machine without internet"
)


@dataclass(frozen=True)
class ModelRef:
    """A model: a folder, or a hub repository at a commit, `organisation/name@commit`.

    >>> ModelRef.of("organisation/name@0123abc")
    ModelRef(path='organisation/name', revision='0123abc')
    """

    path: str
    revision: str | None = None

    @classmethod
    def of(cls, model: "AnyModel") -> "ModelRef":
        """A model as a command line names it. A folder may have an @ in its name."""
        if isinstance(model, ModelRef):
            return model
        path, at, revision = str(model).rpartition("@")
        if not at or isinstance(model, Path) or Path(model).exists():
            return cls(str(model))
        return cls(path, revision)

    def __str__(self) -> str:
        return self.path if self.revision is None else f"{self.path}@{self.revision}"


AnyModel = ModelRef | Path | str


def load_tokenizer(model: AnyModel) -> Any:
    """A checkpoint's tokenizer. Raises InputError when there is none that can be loaded."""
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, ModelRef.of(model), "tokenizer")


def load_checkpoint_config(model: AnyModel) -> Any:
    """A checkpoint's config.json. Raises InputError when there is none that can be loaded."""
    from transformers import AutoConfig

    return _loaded(AutoConfig, ModelRef.of(model), "configuration")


def load_model(kind: Any, model: AnyModel, **options: Any) -> Any:
    """A model by its class (`AutoModelForCausalLM`, ...) with all of its weights.

    Raises InputError when weights are broken or of another shape, and when some are missing:
    transformers would make them up at random and say so in a warning only.
    """
    ref = ModelRef.of(model)
    refuse_pickles(ref.path)
    options |= {"use_safetensors": True, "output_loading_info": True}
    loaded, report = _loaded(kind, ref, "weights", **options)
    if missing := sorted(report["missing_keys"]):
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{ref.path}: the checkpoint lacks {len(missing)} of the tensors of a "
            f"{type(loaded).__name__} ({listed}); {REMEDY}"
        )
    return loaded


#: What is loaded of a hub repository: never pickles.
LOADED_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
#: The same weights once more, in other formats.
OTHER_FORMATS = ("consolidated*", "original/*")


def download(model: AnyModel) -> None:
    """Bring a model of the hub into its cache; a file that another process fetches is waited for.

    Nothing happens for a folder. Raises InputError when it cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError as ConnectionFailed  # type: ignore[attr-defined]

    ref = ModelRef.of(model)
    if Path(ref.path).exists():
        return
    try:
        snapshot_download(
            ref.path,
            revision=ref.revision,
            allow_patterns=list(LOADED_FILES),
            ignore_patterns=list(OTHER_FORMATS),
        )
    except (ConnectionFailed, OSError, ValueError) as error:
        raise InputError(
            f"{ref.path}: cannot be fetched ({' '.join(str(error).split()):.200}); check the name, "
            "and `hf auth login` for a gated repository"
        ) from None


def is_trusted(model: AnyModel) -> bool:
    """Whether a model's own code may run: only at a commit that the configuration lists."""
    return str(ModelRef.of(model)) in RunEnvironment.read().trust_remote_code


def model_options(model: AnyModel) -> dict[str, Any]:
    """Arguments of every from_pretrained of a model."""
    revision = ModelRef.of(model).revision
    trusted = is_trusted(model)
    return {"revision": revision, "trust_remote_code": trusted, "use_safetensors": True}


def refuse_pickles(path: Path | str) -> None:
    """Raise InputError for a folder whose weights are pickles only.

    Of hub repositories transformers and vLLM are asked for safetensors or nothing.
    """
    folder = Path(path)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for kind in PICKLES for file in folder.glob(kind))
    if pickles:
        raise InputError(
            f"{folder / pickles[0]}: weights as a pickle, which may run any code when it is "
            "loaded; save the checkpoint as safetensors (save_pretrained does) where you trust it"
        )


def _loaded(kind: Any, model: ModelRef, what: str, **options: Any) -> Any:
    from safetensors import SafetensorError

    path = model.path
    try:
        return kind.from_pretrained(
            path, revision=model.revision, trust_remote_code=is_trusted(model), **options
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        text = " ".join(str(error).split())[:300] or repr(error)
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{path}: the model brings code of its own, which is not run; read it, and list "
                f"{path}@<commit> under trust_remote_code in the configuration if you trust it"
            ) from None
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
