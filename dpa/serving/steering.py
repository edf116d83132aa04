"""What a policy's folder says about itself: how it is steered, and how it was trained.

`steering.json` lies beside the weights, so that a copied or published policy is as good as the one
in the folder of its run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from dpa.artefacts.outputs import replace_text
from dpa.config.base import Section
from dpa.config.chat import ModelsConfig
from dpa.config.steering import DirectionsConfig, ObjectiveConfig
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef, fetching
from dpa.runtime.reading import read_json_object
from dpa.serving.template import plain_template, steered_template
from dpa.text.prompts import condition_system_prompt, direction_system_prompt
from dpa.text.tokenization import ChatTokenizer

STEERING_FILE = "steering.json"
#: Facts of a training that its policy's folder keeps; its sidecar has more.
TRAINING_FACTS = ("rows", "response_tokens", "steps", "train_loss", "beta")


class PolicySteering(Section):
    """How a policy is steered, and facts of its training."""

    takes: Literal["direction", "condition"]
    """Weights of the objectives (DPA), or ratings that the response should have (SteerLM)."""
    objectives: Annotated[list[ObjectiveConfig], Field(min_length=1)]
    """In the order of the weights."""
    directions: DirectionsConfig | None = None
    """The distribution that the directions of its training were drawn from."""
    models: ModelsConfig | None = None
    """How its conversations became tokens."""
    training: dict[str, float] | None = None
    """Facts of its training."""

    @property
    def names(self) -> list[str]:
        """The objectives' names, in order."""
        return [objective.name for objective in self.objectives]

    def furnish(self, folder: Path, details: Mapping[str, Any]) -> None:
        """Make a saved policy's folder say and do by itself what it takes to steer it.

        `details` are those of its sidecar. Its chat templates take the direction, or the condition.
        """
        models = ModelsConfig.model_validate(details["models"])
        training = {name: details[name] for name in TRAINING_FACTS if name in details}
        templates = [
            folder / "chat_template.jinja", *folder.glob("additional_chat_templates/*.jinja")
        ]  # fmt: skip
        for path in templates:  # of a training from a steered policy
            replace_text(path, plain_template(path.read_text(encoding="utf-8")))
        begin = _begin(ChatTokenizer.load(folder, models), self)
        for path in templates:
            own = path.read_text(encoding="utf-8")
            replace_text(path, steered_template(own, self.names, self.takes, begin))
        whole = self.model_copy(update={"models": models, "training": training})
        content = whole.model_dump(mode="json", exclude_none=True)
        replace_text(folder / STEERING_FILE, json.dumps(content, indent=1) + "\n")


def _begin(chat: ChatTokenizer, steering: PolicySteering) -> str:
    """Jinja for what stands before a conversation, so that its text has our tokens as a whole.

    A BOS where this pipeline puts one before what the template writes; the space is what some
    tokenizers put before a text, but not behind a special token.
    """
    if not chat.adds_bos:
        return ""
    values = [100] + [0] * (len(steering.names) - 1)
    if steering.takes == "direction":
        system = direction_system_prompt(steering.names, [value / 100 for value in values])
    else:
        system = condition_system_prompt(steering.names, values)
    turns = [{"role": "system", "content": system}, {"role": "user", "content": "a"}]
    text = chat.render(turns, generation_prompt=True)
    for begin, spelt in (("bos_token", ""), ('bos_token ~ " "', " ")):
        whole = chat.tokenizer.bos_token + spelt + text
        if chat.tokenizer(whole, add_special_tokens=False)["input_ids"] == chat.prompt_ids(turns):
            return begin
    return "bos_token"


def read_steering(policy: AnyModel) -> PolicySteering:
    """How a policy is steered, by its folder or hub repository.

    Raises InputError when it does not say, which is when it takes neither direction nor condition.
    """
    ref = ModelRef.of(policy)
    path = Path(ref.path) / STEERING_FILE
    if not Path(ref.path).exists():
        path = _fetched(ref)
    if not path.is_file():
        raise InputError(
            f"{ref.path}: not trained on directions (no {STEERING_FILE}); choose a policy of "
            "dpa/iter1 or later"
        )
    try:
        return PolicySteering.model_validate(read_json_object(path))
    except ValidationError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: {reason}; make or copy the policy again") from None


def _fetched(ref: ModelRef) -> Path:
    """A hub repository's file in the cache, or where there would be one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with fetching(ref.path):
        try:
            return Path(hf_hub_download(ref.path, STEERING_FILE, revision=ref.revision))
        except EntryNotFoundError:
            return Path(ref.path) / STEERING_FILE
