"""The configuration of an experiment: config.yaml, the experiment's file, and --config.

Defaults and descriptions are in config.yaml, types and constraints in the other modules here. No
torch: it is the first thing that every run does, and it fails before any job.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dpa.config.base import ModelConfig, Section, is_commit
from dpa.config.data import ColumnConfig, RatingsConfig, SourceConfig, TableConfig, WorldConfig
from dpa.config.experiment import Config
from dpa.config.feedback import ANNOTATORS
from dpa.config.revisions import BRANCH, LOCK_FILE, LOCKED, Lock, read_lock
from dpa.config.steering import ObjectiveConfig
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import merge, read_yaml

#: Keys that were renamed: name in its section -> the new one. `*` stands for any section.
RENAMED = {
    "training": "trainer",
    "cluster": "plan",
    "compute.gpu_memory_gb": "plan.gpu_memory_gb",
    "figures.dpi": "figures.style.dpi",
    "directions.law": "directions.distribution",
    "base_model.scratch.pretraining": "base_model.scratch.schedule",
    "*.training": "schedule",
    "*.schedule.schedule": "lr_scheduler",
    "*.training.schedule": "lr_scheduler",
    "*.pretraining.schedule": "lr_scheduler",
}


def read_experiment(path: Path, extending: tuple[Path, ...] = ()) -> dict:
    """An experiment's overlay, laid over that of the experiment it `extends`, if any."""
    if path.resolve() in extending:
        raise InputError(f"{path}: extends itself; let `extends` name another experiment")
    known = ", ".join(sorted(p.stem for p in (CLONE / "experiments").glob("*.yaml")))
    overlay = read_yaml(path, f" (known experiments: {known})")
    extended = overlay.pop("extends", None)
    if extended is None:
        return overlay
    base = CLONE / "experiments" / f"{extended}.yaml"
    return merge(read_experiment(base, (*extending, path.resolve())), overlay)


def load_config(overrides: dict[str, Any] | None = None) -> Config:
    """config.yaml, overlaid by the experiment's file, overlaid by `overrides` (--config).

    Strings in `overrides` are coerced to the key's type. Raises InputError listing every wrong key
    with its path and the remedy.
    """
    overrides = dict(overrides or {})
    base = read_yaml(CLONE / "config.yaml")
    experiment = str(overrides.pop("experiment", base["experiment"]))
    if experiment.endswith((".yaml", ".yml")):
        path, experiment = Path(experiment), Path(experiment).stem
    else:
        path = CLONE / "experiments" / f"{experiment}.yaml"
    overlay = read_experiment(path)
    old = dict(pair for given in (overlay, overrides) for pair in old_keys(given))
    values = merge(merge(base, overlay), overrides)
    values["experiment"] = experiment
    config, lines = _validated(values, base, old)
    if config is None:
        overlaid = f"config.yaml < {os.path.relpath(path)} < --config"
        raise InputError(f"bad configuration ({overlaid}):\n" + "\n".join(lines))
    return with_revisions(config, read_locks())


def _validated(
    values: dict[str, Any], base: dict[str, Any], old: dict[str, str]
) -> tuple[Config | None, list[str]]:
    """The configuration; or None, and a line for everything that is wrong in it.

    `old` are keys with other names now, `base` config.yaml's values. Beside wrong keys, sections
    that have none are still checked against each other.
    """
    lines = [f"  {key}: renamed; the key is {new} now" for key, new in old.items()]
    wrong = {name.partition(".")[0] for pair in old.items() for name in pair}
    for key in old:
        values = _without(values, key.split("."))
    try:
        config = Config.model_validate(values, context={"wrong": wrong})
        return (None if lines else config), lines
    except ValidationError as error:
        lines += explain(error)
        found = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    if found:
        wrong |= found
        rest = {name: base[name] if name in wrong else values[name] for name in base}
        try:
            Config.model_validate(rest, context={"wrong": wrong})
        except ValidationError as error:
            lines += explain(error)
    return None, lines


def _without(values: dict[str, Any], key: list[str]) -> dict[str, Any]:
    """The values without a key, given by its parts."""
    first, *below = key
    rest = {name: value for name, value in values.items() if name != first}
    if below and isinstance(inner := values.get(first), dict):
        rest[first] = _without(inner, below)
    return rest


def old_keys(values: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, its new name) for each key that has another name now."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        patterns = (path, *(f"*.{path.split('.', n)[-1]}" for n in range(1, path.count(".") + 1)))
        if new := next((RENAMED[p] for p in patterns if p in RENAMED), None):
            yield path, new
        if isinstance(value, dict):
            yield from old_keys(value, f"{path}.")


def read_locks() -> Lock:
    """The commits of the clone's lock file, and over them those of the working directory's own."""
    lock, own = (read_lock(folder / LOCK_FILE) for folder in (CLONE, Path.cwd()))
    for kind, repository, commit in own:
        lock.commits(kind)[repository] = commit
        lock.unverified.discard((kind, repository))
    lock.unverified |= own.unverified
    return lock


def with_revisions(config: Config, lock: Lock) -> Config:
    """The configuration with the lock's commits in the place of `locked`.

    What the lock lacks stays `locked`, or becomes the main branch if the configuration allows that.
    """
    unlocked = BRANCH if config.allow_floating else LOCKED

    def fill(found: SourceConfig | ModelConfig) -> Section:
        if found.revision != LOCKED or found.path is None:
            return found
        commit = lock.commits(found.kind).get(found.path, unlocked)
        return found.model_copy(update={"revision": commit})

    return _rebuilt(config, fill)


def hub_repositories(config: Config) -> Iterator[tuple[str, SourceConfig | ModelConfig]]:
    """(key, model or data set) of everything that the configuration names by path.

    Benchmarks of policies are left out where there are no prompts to train policies on.
    """
    unused = () if config.data.train_prompts else ("alpacaeval", "rewardbench")

    def walk(value: Any, key: str) -> Iterator[tuple[str, SourceConfig | ModelConfig]]:
        if isinstance(value, SourceConfig | ModelConfig) and value.path is not None:
            yield key, value
        if isinstance(value, Section):
            for name in type(value).model_fields:
                if name not in unused:
                    yield from walk(getattr(value, name), f"{key}.{name}".lstrip("."))
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                yield from walk(item, f"{key}.{number}")
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from walk(item, f"{key}.{name}")

    return walk(config, "")


def floating(config: Config) -> str | None:
    """What keeps a run from knowing which commits it uses, in one line; None when it knows."""
    unlocked: dict[str, None] = {}
    problems = []
    for key, found in hub_repositories(config):
        if found.revision == LOCKED:
            unlocked[str(found.path)] = None
        elif found.revision is not None:
            if not is_commit(found.revision) and not config.allow_floating:
                problems.append(f"{key}.revision: {found.revision!r} is no commit of 40 digits")
        elif found.kind == "model" and not Path(str(found.path)).exists():
            problems.append(f"{key}.path: no folder {found.path} here, and no revision of a hub id")
    if unlocked:
        problems.insert(0, f"not in {LOCK_FILE}: {', '.join(unlocked)}")
    return "; ".join(problems) or None


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` applied to every model and data set in it."""
    if isinstance(value, Section):
        fields = {name: _rebuilt(getattr(value, name), change) for name in type(value).model_fields}
        value = value.model_copy(update=fields)
        return change(value) if isinstance(value, SourceConfig | ModelConfig) else value
    if isinstance(value, list):
        return [_rebuilt(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _rebuilt(item, change) for name, item in value.items()}
    return value


def result_settings(config: Config) -> dict[str, Any]:
    """The configuration without what only says which finished work is kept."""
    return config.model_dump(mode="json", by_alias=True, exclude={"rerun_on_code_change"})


def config_hash(config: Config) -> str:
    """Identifies a configuration, 16 hexadecimal digits."""
    text = config.model_dump_json(exclude={"rerun_on_code_change"})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def explain(error: ValidationError) -> list[str]:
    """A line for each wrong key and contradiction: the key, what is wrong, what to do."""
    lines = []
    for item in error.errors():
        # Of a key that takes one value or a list of them, say what is wrong with what was given.
        branches = [p for p in item["loc"] if str(p).startswith(("constrained-", "list[", "{"))]
        if branches and item["type"] == (
            "int_type" if isinstance(item["input"], list) else "list_type"
        ):
            continue
        key = ".".join(str(part) for part in item["loc"] if part not in branches)
        if item["type"] == "extra_forbidden":
            advice = f"unknown key{_nearest(item['loc'])}; see config.yaml"
        elif item["type"] == "missing":
            advice = "missing; see config.yaml"
        else:
            advice = item["msg"].removeprefix("Value error, ")
            if not isinstance(item["input"], dict | BaseModel):
                advice += f" (got {item['input']!r:.80})"
        # What contradicts across sections has no key of its own: its lines name the keys.
        lines += [f"  {key}: {advice}"] if key else [f"  {one}" for one in advice.splitlines()]
    return lines


def _nearest(location: tuple) -> str:
    """A guess at what a misspelt key was meant to be."""
    import difflib

    section: Any = read_yaml(CLONE / "config.yaml")
    for part in location[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    items: tuple[type[Section], ...] = (
        ObjectiveConfig,
        SourceConfig,
        ColumnConfig,
        RatingsConfig,
        TableConfig,
        WorldConfig,
    )
    known = (
        [str(key) for key in section]
        if isinstance(section, dict)
        else [field.alias or name for item in items for name, field in item.model_fields.items()]
    )
    if location[:2] == ("feedback", "annotator") and len(location) == 4:
        known = list(ANNOTATORS[location[2]].model_fields)
    match = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f", did you mean {match[0]!r}?" if match else ""
