"""The command lines of scripts, as rules give them: models, sections, how a policy is steered."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from dpa.artefacts.outputs import replace_text
from dpa.config.base import ModelConfig
from dpa.config.data import SourceConfig
from dpa.config.feedback import EndpointAnnotatorConfig
from dpa.directions import grid_size
from dpa.models import ModelRef
from dpa.workflow.layout import Layout
from dpa.workflow.stamps import STAMPS

#: A longer section travels as a file: Linux limits an argument, which the whole command of a rule
#: is to `bash -c`, to 128 KiB.
LONGEST_ARGUMENT = 8192

#: A string of JSON, and a brace in one. Snakemake fills in {experiment}; it would take any other
#: {word} for a wildcard as well.
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
BRACE = re.compile(r"\{(?!experiment\})|(?<!\{experiment)\}")

Flags = list[str]


def section(value: Any) -> str:
    """A section (or a list, or plain values) as the JSON that scripts take, or as `@file` of it.

    Braces of texts are written as JSON's escapes: they are characters, not Snakemake's wildcards.
    A file is named by its content, so that another content is another command.
    """
    text = JSON_STRING.sub(
        lambda found: BRACE.sub(lambda brace: f"\\u{ord(brace[0]):04x}", found[0]),
        json.dumps(_plain(value)),
    )
    return text if len(text) <= LONGEST_ARGUMENT else section_file(value)


def section_file(value: Any) -> str:
    """`@file` with a value as JSON."""
    text = json.dumps(_plain(value))
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = STAMPS / "sections" / f"{name}.json"
    if not path.exists():
        replace_text(path, text + "\n")
    return f"@{path.as_posix()}"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def repeat(flag: str, values: Iterable[Any]) -> Flags:
    """`flag VALUE` for each value, as a list that :q quotes."""
    return [part for value in values for part in (flag, str(value))]


def given(flag: str, value: Any) -> Flags:
    """`flag VALUE`, or nothing where there is no value."""
    return [] if value is None else [flag, str(value)]


def input_flags(name: str, flag: str = "") -> Callable[..., Flags]:
    """A function for params: `--<name> FILE` for each file of the input `name`."""
    return lambda wildcards, input: repeat(flag or f"--{name.replace('_', '-')}", input.get(name))


def model(flag: str, given: ModelConfig, made: str) -> Flags:
    """`flag MODEL`: one that the configuration names, or the folder that the pipeline makes."""
    if given.path is None:
        return [flag, made]
    return [flag, str(ModelRef(given.path, given.revision))]


def local_paths(sources: Iterable[SourceConfig]) -> list[str]:
    """The sources that are files or folders here, and not on the hub."""
    return [source.path for source in sources if source.revision is None]


def steering(layout: Layout, run: str, policy: str, grid: int | list[list[float]]) -> Flags:
    """The policy that is sampled, and how it is steered: by the grid's directions, by as many
    conditions, or by conditions that stand for the directions."""
    sampled = layout.sampled_policy(policy)
    if layout.is_given(sampled):
        flags = model("--policy", getattr(layout.config, sampled), "")
    else:
        flags = ["--policy", f"{run}/{layout.stage_of_policy(sampled)}/policy"]
    if layout.reads_conditions(policy):
        flags += ["--conditions", f"{run}/steerlm/conditions.json"]
    if layout.reads_ranges(policy):
        flags += ["--ranges", f"{run}/ric/ranges.json"]
    if layout.takes_conditions(policy):
        flags += ["--grid", str(grid_size(grid))]
        flags += ["--curve-points", str(layout.config.steerlm.curve_points)]
    elif layout.takes_directions(policy):
        flags += ["--directions", section(layout.distribution), "--grid", json.dumps(grid)]
    return flags


def sampled_policy(layout: Layout, run: str, loop: str, iteration: int) -> Flags:
    """The policy that an iteration of a loop samples."""
    stage = layout.sampled_stage(loop, iteration)
    given = layout.config.sft if stage == "sft" else ModelConfig(path=None, revision=None)
    return model("--policy", given, f"{run}/{stage}/policy")


def conditions(layout: Layout, run: str, loop: str, iteration: int) -> Flags:
    """What an iteration needs that samples SteerLM, or Rewards-in-Context."""
    if loop == "ric":
        return ["--ranges", f"{run}/ric/ranges.json"]
    if not layout.samples_steerlm(loop, iteration):
        return []
    steerlm = layout.config.steerlm
    return [
        "--conditions", f"{run}/steerlm/conditions.json",
        "--noise", str(steerlm.noise),
        "--uniform-share", str(steerlm.uniform_share),
    ]  # fmt: skip


def rewardbench_tables(layout: Layout) -> Flags:
    """The tables of RewardBench, and who is compared with whom."""
    compared, reference = layout.rewardbench_policies()
    accuracy, *win_rates = layout.rewardbench_tables()
    flags = ["--output-accuracy", accuracy]
    if win_rates and reference:
        flags += ["--output-win-rates", *win_rates]
        flags += ["--policies", ",".join(compared), "--reference", reference]
    return flags


def annotator_section(layout: Layout) -> str:
    """Who rates samples, as far as ratings depend on it."""
    config = layout.config.feedback.annotator
    limits = set(annotator_limits(layout))
    return section(
        config.model_dump(mode="json", by_alias=True, exclude=limits) if config else None
    )


def annotator_limits(layout: Layout) -> dict[str, int | str]:
    """Of an annotator that is asked over HTTP: how many calls at a time, and what they may cost."""
    config = layout.config.feedback.annotator
    if not isinstance(config, EndpointAnnotatorConfig):
        return {}
    return {"concurrency": config.concurrency, "max_cost": str(config.max_cost)}


def preference_judge(layout: Layout) -> Flags:
    """Who judges RewardBench's generations."""
    benchmark = layout.config.rewardbench
    assert benchmark is not None  # the rule is there only with it
    judge = benchmark.judge
    return ["--gold", judge.gold] if judge.gold else model("--preference-judge", judge, "")


def world_sizes(layout: Layout) -> Flags:
    """Sizes of the quickstart's world."""
    sizes = layout.config.world.model_dump() if layout.config.world else {}
    return [part for key, n in sizes.items() for part in (f"--{key.replace('_', '-')}", str(n))]


def is_made(path: str, results: str) -> bool:
    """Whether a source is made by a rule of this experiment, and not a user's own."""
    return "{experiment}" in path or path.startswith(f"{results}/")
