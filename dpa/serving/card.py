"""README.md of an exported policy: a model card, generated from what its folder and run say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dpa.artefacts.outputs import sidecar_path
from dpa.artefacts.sidecars import read_sidecar
from dpa.config.revisions import LOCK_FILE, read_lock
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef
from dpa.runtime.reading import read_document, read_json_object
from dpa.runtime.run_environment import CLONE
from dpa.serving.steering import PolicySteering
from dpa.text.prompts import condition_system_prompt, direction_system_prompt

FIGURE = Path("figures/figure4.png")
TABLE = Path("tables/table1.md")
RECORD = Path("provenance.json")

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
    """What is known of a policy from around its folder; a copied one has nothing there."""

    sidecar: Mapping[str, Any]
    """The policy's."""
    record: Mapping[str, Any]
    """provenance.json of its run."""
    figure: Path | None
    """Figure 4, a PNG."""
    table: str
    """Table 1, in Markdown."""


def read_run(policy: AnyModel) -> PolicyRun:
    """What the run's folder, results/<experiment>/, says about one of its policies."""
    folder = Path(ModelRef.of(policy).path)
    parents = folder.resolve().parents if folder.is_dir() else ()
    sidecar = read_sidecar(folder) if sidecar_path(folder).exists() else {}

    def find(part: Path) -> Path | None:
        return next((p / part for p in parents if (p / part).is_file()), None)

    record, table = find(RECORD), find(TABLE)
    return PolicyRun(
        sidecar,
        read_json_object(record) if record else {},
        find(FIGURE),
        read_document(table).decode() if table else "",
    )


def model_card(steering: PolicySteering, run: PolicyRun, name: str, licence: str | None) -> str:
    """The card's text, the hub's metadata before it. `name` is what readers load."""
    from huggingface_hub import ModelCardData

    commits: dict[str, str] = run.record.get("commits", {})
    data_sets = read_lock(CLONE / LOCK_FILE).commits("dataset")
    metadata = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["directional-preference-alignment", "steerable", "arxiv:2402.18571"],
        datasets=sorted(set(commits) & set(data_sets)) or None,
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---\n\n# {name.rpartition('/')[2]}",
        _what(steering),
        f"## How to steer it\n\n{_how(steering, name)}",
        f"## Training\n\n{_training(steering)}",
    ]
    if run.figure:
        parts.append(
            "## Results\n\n![Figure 4](figure4.png)\n\nRewards of the validation responses under "
            "each direction, for every method and iteration of the run."
        )
    if run.table:
        parts.append(run.table.strip())
    parts.append(f"## Data\n\n{_data(commits)}")
    parts.append(f"## Licence\n\n{_licence(licence)}")
    limits = "\n".join(f"- {text.format(takes=steering.takes)}" for text in LIMITS)
    parts.append(f"## Limits\n\n{limits}")
    parts.append(f"## Provenance\n\n{_provenance(run)}")
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
    return f"{licence}." if licence else "Not stated when the policy was exported."


def _provenance(run: PolicyRun) -> str:
    if not run.sidecar:
        return "Exported from a folder without a sidecar: its run is not on record here."
    lines = [
        f"- weights before export: SHA-256 of the folder `{run.sidecar.get('sha256')}`",
        f"- code: dpa {run.sidecar.get('code_version')}, configuration "
        f"{run.sidecar.get('config_hash')}, base seed {run.sidecar.get('base_seed')}",
        "- packages: "
        + ", ".join(f"{k} {v}" for k, v in sorted(run.sidecar.get("packages", {}).items())),
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
