"""A saved policy's chat template: token for token what the policy was trained on."""

import json
import math
import re
import shutil

import numpy as np
import pytest
from jinja2 import TemplateError
from transformers import AutoTokenizer

from dpa.config.chat import ModelsConfig
from dpa.config.steering import ObjectiveConfig
from dpa.directions import evaluation_directions, from_degrees, unit_direction
from dpa.errors import InputError
from dpa.records import Turn
from dpa.serving.steering import PolicySteering, read_steering
from dpa.serving.template import plain_template, steered_template
from dpa.text.prompts import condition_system_prompt, direction_system_prompt, messages
from dpa.text.tokenization import ChatTokenizer
from tests.support.chat_tokenizers import FAMILIES, ZEPHYR, make_tokenizer, sentencepiece

NAMES = ["helpfulness", "verbosity", "harmlessness"]
MODELS = ModelsConfig(add_bos="auto", chat_template_date="2001-02-03")
ARC = {"distribution": "arc", "from_degrees": -45, "to_degrees": 0}
WEDGE = {"distribution": "wedge", "from_degrees": -45, "to_degrees": 45}
#: Directions of the pipeline, and some with longer and shorter ones of whole hundredths.
GRIDS = {
    2: [
        *evaluation_directions(ARC, 10),
        *(from_degrees(angle) for angle in range(-90, 91, 7)),
        [0.71, -0.71], [0.78, -0.62], [1, 0], [0, -1], [0.992157, 0.125], [0.780625, -0.625],
    ],
    3: [*evaluation_directions(WEDGE, 20), [0.58, -0.58, 0.58], [0, 0, 1], [-0.6, 0, 0.8]],
}  # fmt: skip
USER = {"role": "user", "content": "Tell me about the otter."}
ANSWER = {"role": "assistant", "content": "Hello there, how are you?"}
SYSTEM = {"role": "system", "content": "A list, please."}
CONVERSATIONS = {
    "a question": [USER],
    "a system prompt": [SYSTEM, USER],
    "several turns": [USER, ANSWER, USER],
    "several turns after a system prompt": [SYSTEM, USER, ANSWER, USER],
}


def steering(objectives: int, takes: str = "direction") -> PolicySteering:
    return PolicySteering(
        takes=takes,
        objectives=[ObjectiveConfig(name=name, outputs={name: 1.0}) for name in NAMES[:objectives]],
    )


def furnished(folder, tokenizer, objectives=2, takes="direction"):
    """The tokenizer of a saved policy, and what this pipeline makes of conversations."""
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(
        json.dumps(
            {"model_type": "llama", "vocab_size": len(tokenizer), "num_attention_heads": 2,
             "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        )
    )  # fmt: skip
    steering(objectives, takes).furnish(folder, {"models": MODELS.model_dump(mode="json")})
    return AutoTokenizer.from_pretrained(folder), ChatTokenizer(tokenizer, MODELS)


def served(tokenizer, turns, **asked):
    """Token ids as a server makes them."""
    return tokenizer.apply_chat_template(
        turns,
        add_generation_prompt=True,
        return_dict=False,
        date_string=MODELS.chat_template_date.strftime("%d %b %Y"),
        **asked,
    )


def ours(chat, turns, sentence):
    """Token ids as in training: a user's system text first, then the sentence that steers."""
    return chat.prompt_ids(messages([Turn(**turn) for turn in turns], sentence))


@pytest.mark.parametrize("objectives", GRIDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_direction_gives_the_tokens_of_training(tmp_path, family, objectives):
    names = NAMES[:objectives]
    tokenizer, chat = furnished(tmp_path, make_tokenizer(family), objectives)
    for turns in CONVERSATIONS.values():
        for direction in GRIDS[objectives]:
            sentence = direction_system_prompt(names, unit_direction(direction, objectives))
            assert served(tokenizer, turns, direction=direction) == ours(chat, turns, sentence)
    assert ours(chat, [USER], "Hi") == chat.prompt_ids(messages(USER["content"], "Hi"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_condition_does(tmp_path, family):
    tokenizer, chat = furnished(tmp_path, make_tokenizer(family), takes="condition")
    for condition in ([80, 20], [0, 100], [54.6, 3.0], [54.5, 55.5]):
        sentence = condition_system_prompt(NAMES[:2], [round(value) for value in condition])
        assert served(tokenizer, [USER], condition=condition) == ours(chat, [USER], sentence)
    for wrong in ([80], [101, 0], [-1, 0], "80,20", [True, 0], [math.nan, 0]):
        with pytest.raises(TemplateError, match="condition: expected a list of 2 ratings"):
            served(tokenizer, [USER], condition=wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_it_the_prompt_is_the_plain_one(tmp_path, family):
    tokenizer, chat = furnished(tmp_path, make_tokenizer(family))
    saved = ChatTokenizer.load(tmp_path, MODELS)
    for turns in CONVERSATIONS.values():
        assert served(tokenizer, turns) == served(tokenizer, turns, direction=None)
        assert served(tokenizer, turns) == chat.prompt_ids(turns) == saved.prompt_ids(turns)
        answered = [*turns, ANSWER]
        assert saved.conversation_ids(answered) == chat.conversation_ids(answered)
    assert saved.controls.strings == chat.controls.strings
    assert saved.decode(saved.answer_ids([USER], ["Hello."])[1][0]).startswith("Hello.")


@pytest.mark.parametrize("leading_space", ["legacy", "first"])
def test_a_bos_that_the_template_does_not_write(tmp_path, leading_space):
    tokenizer, chat = furnished(tmp_path, sentencepiece(ZEPHYR, [], "</s>", leading_space))
    sentence = direction_system_prompt(NAMES[:2], [0.8, -0.6])
    ids = served(tokenizer, [SYSTEM, USER], direction=[0.8, -0.6])
    assert ids == ours(chat, [SYSTEM, USER], sentence)
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("objectives", GRIDS)
def test_one_rule_with_the_chat(tmp_path, objectives):
    """What the template refuses, the chat refuses, with the same nearest unit vector."""
    tokenizer, _ = furnished(tmp_path, make_tokenizer("qwen2.5"), objectives)
    names, generator = NAMES[:objectives], np.random.default_rng(0)
    lengths = [0, 1e-5, 1e-3, 0.5, 0.98, 0.9901, 0.995, 1, 1.0099, 1.02, 3, 1e6, 1e200]
    for length in lengths:
        for _ in range(20):
            direction = generator.normal(size=objectives)
            direction = (direction * (length / np.hypot.reduce(direction))).tolist()
            if 0.99 < length < 1.01:
                unit = unit_direction(direction, objectives)
                text = tokenizer.decode(served(tokenizer, [USER], direction=direction))
                assert direction_system_prompt(names, unit) in text
                continue
            with pytest.raises(InputError) as refused:
                unit_direction(direction, objectives)
            with pytest.raises(TemplateError) as refused_by_template:
                served(tokenizer, [USER], direction=direction)
            if length <= 1e6:
                assert str(refused_by_template.value) == str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [[1], [1, 0, 0], "0.8,-0.6", {"a": 1, "b": 0}, 1, [True, 0], ["0.8", "-0.6"], [None, 1]],
)
def test_what_is_no_direction_is_refused(tmp_path, wrong):
    tokenizer, _ = furnished(tmp_path, make_tokenizer("qwen2.5"))
    expected = "direction: expected a list of 2 numbers, one each for helpfulness, verbosity"
    with pytest.raises(TemplateError, match=expected):
        served(tokenizer, [USER], direction=wrong)
    with pytest.raises(TemplateError, match="not 1"):
        served(tokenizer, [USER], direction=[math.inf, 0])


def test_parts_of_a_system_prompt(tmp_path):
    """Clients may send contents as lists; a template that takes such gets one."""
    template = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}|{% endfor %}"
    )
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [{"role": "system", "content": [{"type": "text", "text": "A list."}]}, USER]
    steered = steered_template(template, NAMES[:2], "direction")
    [text], _ = render_jinja_template([turns], chat_template=steered, direction=[1, 0])
    assert text.startswith("A list. Your response should")
    assert text.endswith("helpfulness*100 + verbosity*0|Tell me about the otter.|")


@pytest.mark.parametrize("takes", ["direction", "condition"])
def test_llama_cpp_reads_it(takes):
    """Its own Jinja has no powers, no `round` and no `format`; `a.length` calls a filter there."""
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    template = steered_template("", NAMES, takes)
    assert not re.search(r"\de\d", template)  # 1e100 is no number there
    tree = ImmutableSandboxedEnvironment().parse(template)
    assert {node.name for node in tree.find_all(nodes.Filter)} <= {"int", "join", "length"}
    assert {node.name for node in tree.find_all(nodes.Test)} == {
        "boolean", "defined", "mapping", "none", "number", "sequence", "string",
    }  # fmt: skip
    assert not {*tree.find_all((nodes.Pow, nodes.FloorDiv))}
    members = {node.attr for node in tree.find_all((nodes.NSRef, nodes.Getattr))}
    assert not members & {"get", "items", "keys", "length", "values"}


def test_servers_pass_the_direction_on():
    """They drop what a template does not read, or assigns."""
    import jinja2.meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    tree = ImmutableSandboxedEnvironment().parse(steered_template(ZEPHYR, NAMES, "direction"))
    assert "direction" in jinja2.meta.find_undeclared_variables(tree)


@pytest.mark.parametrize(
    "own", ["\n  a\n", "  {% if 1 %}\n\nb{% endif %}", "{{- 'c' }}", "{%- if 1 %}d{% endif %}"]
)
def test_the_models_own_template_writes_what_it_did(own):
    from transformers.utils.chat_template_utils import render_jinja_template

    steered = steered_template(own, NAMES, "direction")
    for template in (steered, steered_template(own, NAMES, "direction", '"" ~ ""')):
        assert plain_template(template) == own
        assert render_jinja_template([[USER]], chat_template=template) == render_jinja_template(
            [[USER]], chat_template=own
        )


def test_furnishing_twice_is_furnishing_once(tmp_path):
    """A finished training whose job was killed, and a training from a steered policy."""
    furnished(tmp_path / "once", make_tokenizer("zephyr"))
    shutil.copytree(tmp_path / "once", tmp_path / "twice")
    steering(2).furnish(tmp_path / "twice", {"models": MODELS.model_dump(mode="json")})
    for file in (tmp_path / "once").iterdir():
        assert file.read_bytes() == (tmp_path / "twice" / file.name).read_bytes()
    assert read_steering(tmp_path / "twice").names == NAMES[:2]
