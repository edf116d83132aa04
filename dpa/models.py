"""Loading checkpoints and tokenizers: whatever is wrong with one is a message that names it.

A checkpoint is data, not a program: weights are read from safetensors only (a pickle may run
anything), and its own Python code runs only if the configuration's trust_remote_code lists it.

It is checked as a whole, the same for policies, reward models and judges: config.json and tokenizer
when the tokenizer is loaded (`check_checkpoint`), weights when they are (`load_model`, or
`check_weights` before an engine that loads them itself). No torch is imported here, so that
tokenizers can be loaded without it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpa.errors import InputError, out_of_memory
from dpa.runtime.run_environment import RunEnvironment

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")

#: Kinds of weights that are pickles.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

#: Sizes in a config.json, by the names that all architectures share.
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window",
)  # fmt: skip

#: Tensors that a checkpoint may have beside its model's, and why they mean nothing: what used to be
#: saved of position encodings, and the language model's head under a classifier.
HARMLESS = {
    "": r"rotary_emb\.inv_freq$|(^|\.)position_ids$|\.attn\.(masked_)?bias$",
    "ForSequenceClassification": r"^lm_head\.",
}

#: What two models of one architecture have in common, whatever their tokens.
ARCHITECTURE = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim",
)  # fmt: skip

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
    """A checkpoint's tokenizer, once it and config.json are known to fit (`check_checkpoint`).

    Raises InputError when there is none that can be loaded.
    """
    from transformers import AutoTokenizer

    ref = ModelRef.of(model)
    tokenizer = _loaded(AutoTokenizer, ref, "tokenizer")
    check_checkpoint(load_checkpoint_config(ref), tokenizer, ref.path)
    return tokenizer


def load_checkpoint_config(model: AnyModel) -> Any:
    """A checkpoint's config.json. Raises InputError when there is none that can be loaded."""
    from transformers import AutoConfig

    ref = ModelRef.of(model)
    _refuse_adapter(ref.path)
    return _loaded(AutoConfig, ref, "configuration")


def load_model(kind: Any, model: AnyModel, **options: Any) -> Any:
    """A model by its class (`AutoModelForCausalLM`, ...) with all of its weights.

    Raises InputError when weights are broken, of another shape, or others than the model's: of what
    is missing transformers would make numbers up, and what is too much it would leave out (half of
    the layers, where config.json names fewer), with a warning only.
    """
    ref = ModelRef.of(model)
    refuse_pickles(ref.path)
    _refuse_adapter(ref.path)
    options |= {
        "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True,
    }  # fmt: skip
    loaded, report = _loaded(kind, ref, "weights", **options)
    name = type(loaded).__name__
    harmless = "|".join(pattern for of, pattern in HARMLESS.items() if name.endswith(of))
    too_many = [key for key in report["unexpected_keys"] if not re.search(harmless, key)]
    shapes = [
        f"{key} is {_shape(stored)}, not {_shape(expected)}"
        for key, stored, expected in report.get("mismatched_keys", ())
    ]
    for what, keys in (
        (f"lacks {{}} of the tensors of a {name}", report["missing_keys"]),
        (f"has {{}} tensors that a {name} of its config.json has not", too_many),
        (f"has {{}} tensors of other shapes than a {name} of its config.json", shapes),
    ):
        if listed := sorted(keys):
            some = ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
            raise InputError(
                f"{ref.path}: the checkpoint {what.format(len(listed))} ({some}); {REMEDY}"
            )
    return loaded


#: What is loaded of a hub repository: never pickles.
LOADED_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
#: The same weights once more, in other formats.
OTHER_FORMATS = ("consolidated*", "original/*")


@contextmanager
def fetching(repository: str) -> Iterator[None]:
    """Turn whatever the hub raises into an InputError."""
    from huggingface_hub.errors import HTTPError as ConnectionFailed  # type: ignore[attr-defined]

    try:
        yield
    except InputError:  # of what was fetched
        raise
    except (ConnectionFailed, OSError, ValueError) as error:
        raise InputError(
            f"{repository}: cannot be fetched ({' '.join(str(error).split()):.200}); check the "
            "name, and `hf auth login` for a gated repository"
        ) from None


def download(model: AnyModel) -> None:
    """Bring a model of the hub into its cache; a file that another process fetches is waited for.

    Nothing happens for a folder. Raises InputError when it cannot be had.
    """
    from huggingface_hub import snapshot_download

    ref = ModelRef.of(model)
    if Path(ref.path).exists():
        return
    with fetching(ref.path):
        snapshot_download(
            ref.path,
            revision=ref.revision,
            allow_patterns=[*LOADED_FILES, *(["*.py"] if is_trusted(ref) else [])],
            ignore_patterns=list(OTHER_FORMATS),
        )


def check_weights(kind: Any, model: AnyModel) -> None:
    """`load_model`'s checks for an engine that loads weights itself: only their names are read."""
    load_model(kind, model, device_map="meta")


def check_checkpoint(config: Any, tokenizer: Any, path: str) -> None:
    """Raise InputError unless config.json can be true, and the tokenizer's ids have embeddings.

    Published checkpoints have spare embeddings, and special tokens beyond them that no text has
    (those of images): every token that texts and templates have must have an embedding.
    """
    if getattr(config, "quantization_config", None):
        raise InputError(
            f"{path}: a quantised checkpoint, which can neither be trained nor compared with others"
            "; give the model that it was made from"
        )
    text = config.get_text_config(decoder=True)
    wrong = [f"{name}: {value}" for name, value in _numbers(text) if not _is_sane(name, value)]
    heads, groups = text.num_attention_heads, getattr(text, "num_key_value_heads", None)
    if not wrong and groups and heads % groups:
        wrong = [f"num_attention_heads: {heads} is no multiple of num_key_value_heads: {groups}"]
    if tokenizer.model_max_length <= 0:
        wrong.append(f"model_max_length: {tokenizer.model_max_length} (tokenizer_config.json)")
    if wrong:
        raise InputError(f"{path}: no model has {'; '.join(wrong)} in its config.json; {REMEDY}")
    if beyond := {t: i for t, i in _tokens_in_use(tokenizer).items() if i >= text.vocab_size}:
        token = max(beyond, key=lambda t: beyond[t])
        raise InputError(
            f"{path}: its embedding has {text.vocab_size} tokens, and {len(beyond)} of its "
            f"tokenizer's have ids beyond it ({token!r} has {beyond[token]}); take the tokenizer "
            "that the model was trained with, or resize the embedding"
        )


def check_same_architecture(reward_model: AnyModel, base_model: AnyModel) -> None:
    """Raise InputError unless a reward model is a base model's, by both config.json."""
    reward, base = load_checkpoint_config(reward_model), load_checkpoint_config(base_model)
    differing = [
        f"{name} {getattr(reward, name, None)}, not {getattr(base, name, None)}"
        for name in ARCHITECTURE
        if getattr(reward, name, None) != getattr(base, name, None)
    ]
    if differing:
        raise InputError(
            f"{reward_model}: of another architecture than the base model, {base_model} "
            f"({', '.join(differing)}), and cannot be continued; give the base model that it was "
            "made from, or set feedback.start to base"
        )


def read_end_tokens(model: AnyModel, tokenizer: Any) -> list[int]:
    """The tokens that end a policy's responses, by its generation_config.json or config.json.

    Raises InputError when it names none, or one that its tokenizer does not have: no response would
    ever end.
    """
    from transformers import GenerationConfig

    ref = ModelRef.of(model)
    try:
        given = GenerationConfig.from_pretrained(
            ref.path, revision=ref.revision or "main"
        ).eos_token_id
    except OSError:  # none: transformers and vLLM then go by config.json
        given = load_checkpoint_config(ref).get_text_config(decoder=True).eos_token_id
    ends = [given] if isinstance(given, int) else list(given or ())
    known = {*tokenizer.get_vocab().values()}
    if not ends or not known.issuperset(ends):
        named = f"end tokens {ends}, which are not all in its tokenizer" if ends else "no end token"
        raise InputError(
            f"{ref.path}: names {named}, so no response would ever end; set eos_token_id in "
            "its generation_config.json"
        )
    return ends


def label_names(config: Any, path: str) -> list[str]:
    """Names of a classifier's outputs, in order. Raises InputError when they do not tell apart."""
    names = [config.id2label.get(i) for i in range(config.num_labels)]
    if None in names or len(set(names)) < len(names):
        raise InputError(
            f"{path}: id2label in config.json is {dict(config.id2label)}; each of its "
            f"{len(names)} outputs needs a number from 0 on and a name of its own"
        )
    return names


def output_names(config: Any, attributes: Sequence[str] | None, path: str) -> list[str]:
    """Names of a checkpoint's outputs in order: its own, or `attributes` where it names none.

    Raises InputError when names are missing, or other than `attributes`.
    """
    names = label_names(config, path)
    unnamed = names == [f"LABEL_{i}" for i in range(len(names))]
    if not unnamed and (attributes is None or list(attributes) == names):
        return names
    if unnamed and attributes is not None and len(attributes) == len(names):
        return list(attributes)
    if unnamed and attributes is None:
        raise InputError(
            f"{path}: the checkpoint does not name its {len(names)} outputs; name them, in order: "
            "--attributes A,B,... (reward_model.attributes in an experiment)"
        )
    found = f"{len(names)} unnamed outputs" if unnamed else f"the outputs {names}"
    raise InputError(f"{path}: the reward model has {found}, expected {list(attributes or ())}")


def _numbers(config: Any) -> Iterable[tuple[str, Any]]:
    """A config.json's sizes, and whatever else is a number in it."""
    values = {name: getattr(config, name, None) for name in SIZES}
    values |= {k: v for k, v in config.to_dict().items() if isinstance(v, float)}
    return (values | (getattr(config, "rope_parameters", None) or {})).items()


def _is_sane(name: str, value: Any) -> bool:
    if name in SIZES:
        return value is None or value > 0
    if name in ("rope_theta", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"):
        return math.isfinite(value) and value > 0
    return not isinstance(value, float) or math.isfinite(value)


def _tokens_in_use(tokenizer: Any) -> dict[str, int]:
    """The tokens that texts, or a chat template around them, become."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    named = {tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token}
    special = {t.content for t in added.values() if t.special and t.content not in named}
    template = str(tokenizer.chat_template or "")
    return {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if token not in special or token in template
    }


def _shape(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _refuse_adapter(path: str) -> None:
    """Raise InputError for a folder of adapters, on whose base transformers would put them."""
    if (Path(path) / "adapter_config.json").exists():
        raise InputError(
            f"{path}: LoRA adapters, not a whole model; merge them into their base (peft's "
            "merge_and_unload), save that, and give its folder"
        )


def is_trusted(model: AnyModel) -> bool:
    """Whether a model's own code may run: only at a commit that the configuration lists."""
    return str(ModelRef.of(model)) in RunEnvironment.read().trust_remote_code


def refuse_own_code(config: Mapping[str, Any], model: AnyModel) -> None:
    """Raise InputError for a checkpoint that needs code of its own, unless that is trusted.

    `config` is its config.json. transformers would take the class that it has for the model's type
    in the place of the checkpoint's own, and make up the weights in which they differ.
    """
    import transformers

    known = dir(transformers)  # without importing any
    own = [name for name in config.get("architectures") or () if name not in known]
    if own and config.get("auto_map") and not is_trusted(model):
        raise _own_code(ModelRef.of(model), f" ({own[0]})")


def _own_code(model: ModelRef, name: str = "") -> InputError:
    """The error for code that is not trusted, with the ways to trust it."""
    pinned = f"{model.path}@{model.revision or '<commit>'}"
    return InputError(
        f"{model.path}: the model brings code of its own{name}, which is not run; read it, and if "
        f"you trust it, list {pinned} under trust_remote_code in the experiment, or by hand set "
        f"DPA_TRUST_REMOTE_CODE={pinned} and name the model so"
    )


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
    with loading(model, f"cannot load the {what}"):
        return kind.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=is_trusted(model), **options
        )


@contextmanager
def loading(model: ModelRef, what: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads a model into an InputError with its reason.

    A checkpoint that is not what it says makes it raise what it likes: an unknown dtype is an
    AttributeError, a missing package an ImportError.
    """
    path = model.path
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if out_of_memory(error) is not None:
            raise
        text = " ".join(str(error).split())[:300] or repr(error)
        if "trust_remote_code" in str(error):
            raise _own_code(model) from None
        if isinstance(error, KeyError | AttributeError):  # of which only a name is told
            text = f"{type(error).__name__} {text}"
        if not Path(path).exists() and not HUB_ID.fullmatch(str(path)):
            text = "no such folder"
        raise InputError(f"{path}: {what}: {text}; {REMEDY}") from None
