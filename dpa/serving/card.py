"""README.md of a policy: a model card, generated from what its training, folder and run say."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dpa.artefacts.files import CARD
from dpa.artefacts.outputs import replace_text, sidecar_path
from dpa.artefacts.sidecars import made_by, read_sidecar
from dpa.config.revisions import LOCK_FILE, read_lock
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef
from dpa.runtime.reading import read_document, read_json_object
from dpa.runtime.run_environment import CLONE, RunEnvironment
from dpa.serving.steering import PolicySteering, read_steering
from dpa.text.prompts import condition_system_prompt, direction_system_prompt

FIGURE = Path("figures/figure4.png")
TABLE = Path("tables/table1.md")
RECORD = Path("provenance.json")
#: What a card says of where its policy comes from, to be read again.
COMMIT = re.compile(r"^- `([^`]+)` at commit `([^`]+)`$", re.M)
PROVENANCE = re.compile(r"^## Provenance\n\n(.+?)\s*\Z", re.M | re.S)

#: Of what a reader should be warned.
LIMITS = (
    "A direction outside of the range that it was trained on is not refused; what it does there is "
    "not known.",
    "Servers drop template arguments that they do not know: a misspelt `{takes}` gives an "
    "unsteered answer, and no error.",
    "Rewards are a reward model's opinion, which a policy can exploit; they are no measure of "
    "truth or of harm.",
    "Licences of the data, and of the model that training started from, may apply to the weights.",
)


class PolicyRun(NamedTuple):
    """What is known of the run that made a policy."""

    provenance: str
    """In Markdown."""
    commits: Mapping[str, str]
    """Of hub repositories that the run read."""
    figure: Path | None = None
    """Figure 4, a PNG."""
    table: str = ""
    """Table 1, in Markdown."""


def write_card(folder: Path) -> None:
    """The card of a policy that has just been trained: its run has neither figure nor table yet."""
    run = PolicyRun(_provenance(made_by()), RunEnvironment.read().commits)
    replace_text(folder / CARD, model_card(read_steering(folder), run))


def read_run(policy: AnyModel) -> PolicyRun:
    """What the run's folder, results/<experiment>/, says about one of its policies; of a policy
    that was copied out of it, what its card says."""
    folder = Path(ModelRef.of(policy).path)
    parents = folder.resolve().parents if folder.is_dir() else ()
    card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""

    def find(part: Path) -> Path | None:
        return next((p / part for p in parents if (p / part).is_file()), None)

    record, table = find(RECORD), find(TABLE)
    if sidecar_path(folder).exists():
        provenance = _provenance(read_sidecar(folder))
    else:
        kept = PROVENANCE.search(card)
        provenance = kept[1] if kept else "Its run is not on record here."
    return PolicyRun(
        provenance,
        read_json_object(record).get("commits", {}) if record else dict(COMMIT.findall(card)),
        find(FIGURE),
        read_document(table).decode() if table else "",
    )


def model_card(
    steering: PolicySteering, run: PolicyRun, name: str | None = None, licence: str | None = None
) -> str:
    """The card's text, the hub's metadata before it. `name` is what readers load, if that is known:
    a policy of a run is a folder, wherever it goes."""
    from huggingface_hub import ModelCardData

    data_sets = read_lock(CLONE / LOCK_FILE).commits("dataset")
    title = name.rpartition("/")[2] if name else "A policy steered by " + ", ".join(steering.names)
    metadata = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["directional-preference-alignment", "steerable", "arxiv:2402.18571"],
        datasets=sorted(set(run.commits) & set(data_sets)) or None,
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---\n\n# {title}",
        _what(steering),
        f"## How to steer it\n\n{_how(steering, name or 'path/to/this/folder')}",
        f"## Training\n\n{_training(steering)}",
    ]
    if run.figure:
        parts.append(
            "## Results\n\n![Figure 4](figure4.png)\n\nRewards of the validation responses under "
            "each direction, for every method and iteration of the run."
        )
    if run.table:
        parts.append(run.table.strip())
    parts.append(f"## Data\n\n{_data(run.commits)}")
    parts.append(f"## Licence\n\n{_licence(licence)}")
    limits = "\n".join(f"- {text.format(takes=steering.takes)}" for text in LIMITS)
    parts.append(f"## Limits\n\n{limits}")
    parts.append(f"## Provenance\n\n{run.provenance}")
    return "\n\n".join(parts) + "\n"


def _what(steering: PolicySteering) -> str:
    names = ", ".join(steering.names)
    if steering.takes == "condition":
        return (
            f"A language model that is told which ratings its response should have ({names}), "
            "trained by SteerLM with [dpa](https://arxiv.org/abs/2402.18571)."
        )
    return (
        f"A language model steered by a direction, a unit vector over {names}, trained by "
        "Directional Preference Alignment ([Wang et al., ACL 2024](https://arxiv.org/abs/2402.18571))."
    )


def _how(steering: PolicySteering, name: str) -> str:
    count = len(steering.names)
    if steering.takes == "direction":
        value: list[float] = [0.8, -0.6, *[0.0] * (count - 2)] if count > 1 else [1.0]
        system = direction_system_prompt(steering.names, value)
        rule = "Its length must be 1, within 1 %"
    else:
        value = [80, *[20] * (count - 1)]
        system = condition_system_prompt(steering.names, [int(v) for v in value])
        rule = "Ratings go from 0 to 100"
    ranged = ""
    if steering.directions is not None:
        keys = steering.directions.model_dump()
        listed = ", ".join(f"{key} {keys[key]}" for key in keys)
        ranged = f" Directions of the training: {listed}."
    return f"""\
The chat template takes `{steering.takes}`, a list in the order {", ".join(steering.names)}.
{rule}.{ranged}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
inputs = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "..."}}],
    {steering.takes}={value},
    add_generation_prompt=True,
    return_dict=True,
    return_tensors="pt",
)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=200)[0]))
```

With a server (vLLM): `"chat_template_kwargs": {{"{steering.takes}": {value}}}` in the request.
Elsewhere, as the system prompt:

```text
{system}
```"""


def _training(steering: PolicySteering) -> str:
    lines = [
        f"- objective {o.name}: "
        + " + ".join(f"{weight:g} * {output}" for output, weight in o.outputs.items())
        for o in steering.objectives
    ]
    lines += [f"- {k.replace('_', ' ')}: {v:g}" for k, v in (steering.training or {}).items()]
    return "\n".join(lines)


def _data(commits: Mapping[str, str]) -> str:
    if not commits:
        return "No data set or model of the hub is on record; see the run's configuration."
    return "\n".join(f"- `{name}` at commit `{commit}`" for name, commit in sorted(commits.items()))


def _licence(licence: str | None) -> str:
    if licence:
        return f"{licence}."
    return (
        "None is given for the weights; those of the data and of the model that training started "
        "from are stated where these come from."
    )


def _provenance(made: Mapping[str, Any]) -> str:
    """By a sidecar, or what is known of it while the policy's folder is filled."""
    hashed = made.get("sha256")
    lines = [f"- weights before export: SHA-256 of the folder `{hashed}`"] if hashed else []
    packages = ", ".join(f"{k} {v}" for k, v in sorted(made.get("packages", {}).items()))
    lines += [
        f"- made by `{made.get('stage')}` of dpa {made.get('code_version')}, configuration "
        f"{made.get('config_hash')}, base seed {made.get('base_seed')}",
        f"- packages: {packages}",
    ]
    return "\n".join(lines)


def check_repository(repository: str | None) -> None:
    """Raise InputError unless it can be the name of a hub repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if repository is not None:
            validate_repo_id(repository)
            if "/" not in repository:
                raise HFValidationError("no organisation in it")
    except HFValidationError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--push {repository}: {reason}; give organisation/name") from None
