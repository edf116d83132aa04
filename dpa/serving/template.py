"""The chat template of a saved policy, which takes the direction and writes the system prompt.

`apply_chat_template(messages, direction=[0.8, -0.6])`, or `chat_template_kwargs` of a server, then
gives the tokens that the policy was trained on, with nothing of this package installed. The model's
own template stands unchanged behind a preamble in Jinja that is generated here, from the wording in
`dpa.text.prompts`. The preamble assigns no `direction`: servers pass on only what a template reads
and does not assign. It computes with what llama.cpp's own reading of Jinja has, which lacks powers,
`round` and `format`: a square root by Newton's method, and rounding to even by a sum.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from dpa.directions import ASKED_TOLERANCE, LENGTH_TOLERANCE
from dpa.text.prompts import CONDITION_SENTENCE, DIRECTION_SENTENCE, SYSTEM_SENTENCE

#: What a policy takes: DPA's a direction, SteerLM's a condition.
Takes = Literal["direction", "condition"]
BEGIN = "{# Directional Preference Alignment: what is asked for becomes the system prompt. #}\n"
#: A line end after a comment or block is not written: the model's own template begins a new line.
END = "{# Here the model's own chat template begins. #}\n"

#: 1.5 x 2^52, from which numbers of either sign leave the same exponent.
WHOLE = f"{1.5 * 2**52:.1f}"

_DIRECTION = """\
{% if direction is defined and direction is not none %}
{% set steer = namespace(squares=0, norm=1, good=direction is sequence and direction is not string \
and direction is not mapping and direction | length == COUNT) %}
{% if steer.good %}
{% for weight in direction %}
{% if weight is number and weight is not boolean %}
{% set steer.squares = steer.squares + weight * weight %}
{% else %}
{% set steer.good = false %}
{% endif %}
{% endfor %}
{% endif %}
{% if not steer.good %}
{{- raise_exception("direction: expected a list of COUNT numbers, one each for LISTED") }}
{% endif %}
{% for step in range(50) %}
{% set steer.norm = (steer.norm + steer.squares / steer.norm) / 2 %}
{% endfor %}
{% if not (LEAST <= steer.norm and steer.norm <= MOST) %}
{% if 0.000001 < steer.norm and steer.norm < 10000000 %}
{% set steer.nearest = [NEAREST] %}
{% else %}
{% set steer.nearest = [UNIT] %}
{% endif %}
{{- raise_exception("direction " ~ direction ~ " has length " ~ LENGTH \
~ ", not 1; nearest unit vector: " ~ steer.nearest | join(",")) }}
{% endif %}
{% if EXACT_LEAST <= steer.norm and steer.norm <= EXACT_MOST %}
{% set steer.norm = 1 %}
{% endif %}
{% set steer.sentence = SENTENCE %}
"""
_CONDITION = """\
{% if condition is defined and condition is not none %}
{% set steer = namespace(good=condition is sequence and condition is not string \
and condition is not mapping and condition | length == COUNT) %}
{% if steer.good %}
{% for rating in condition %}
{% if not (rating is number and rating is not boolean and 0 <= rating and rating <= 100) %}
{% set steer.good = false %}
{% endif %}
{% endfor %}
{% endif %}
{% if not steer.good %}
{{- raise_exception("condition: expected a list of COUNT ratings from 0 to 100, one each for \
LISTED") }}
{% endif %}
{% set steer.sentence = SENTENCE %}
"""
#: The system text of a user takes the place of ours. Contents may be lists of parts, as of images.
_TURNS = """\
{% if messages and messages[0].role == "system" %}
{% if messages[0].content is string %}
{% set steer.between = " " if messages[0].content else "" %}
{% set steer.content = messages[0].content ~ steer.between ~ steer.sentence %}
{% else %}
{% set steer.content = messages[0].content + [{"type": "text", "text": " " ~ steer.sentence}] %}
{% endif %}
{% set messages = [{"role": "system", "content": steer.content}] + messages[1:] %}
{% else %}
{% set messages = [{"role": "system", "content": OURS ~ " " ~ steer.sentence}] + messages %}
{% endif %}
{% endif %}
"""


def steered_template(template: str, names: Sequence[str], takes: Takes, begin: str = "") -> str:
    """A chat template that also takes `direction`, or `condition`: a list in the order of `names`.

    Without it the template writes what it did. A direction is taken within 1 % of length 1, as
    `unit_direction` takes it. `begin` is a Jinja expression of what every conversation begins with
    where the template itself does not write it (a BOS).
    """
    body = _DIRECTION if takes == "direction" else _CONDITION
    for word, value in _words(names, takes).items():
        body = body.replace(word, value)
    body += _TURNS.replace("OURS", _literal(SYSTEM_SENTENCE))
    first = f"{{{{- {begin} }}}}" if begin else ""
    return BEGIN + body + first + END + plain_template(template)


def plain_template(template: str) -> str:
    """The model's own template, without what steered_template put before it."""
    return template.partition(END)[2] if template.startswith(BEGIN) else template


def _words(names: Sequence[str], takes: Takes) -> dict[str, str]:
    """What stands in the places of the preamble's words in capitals."""
    if takes == "condition":
        sentence = _sentence(
            CONDITION_SENTENCE,
            ", ",
            (f'"{n}=" ~ {_rounded(f"condition[{i}]")} | int' for i, n in enumerate(names)),
        )
        return {"COUNT": str(len(names)), "LISTED": ", ".join(names), "SENTENCE": sentence}
    unit = [f"direction[{i}] / steer.norm" for i in range(len(names))]
    weights = (
        f'"{n}*" ~ {_rounded(f"100 * ({v})")} | int' for n, v in zip(names, unit, strict=True)
    )
    return {
        "COUNT": str(len(names)),
        "LISTED": ", ".join(names),
        "SENTENCE": _sentence(DIRECTION_SENTENCE, " + ", weights),
        "NEAREST": ", ".join(f"{_rounded(f'10000 * ({v})')} / 10000" for v in unit),
        "UNIT": ", ".join(["1.0", *["0.0"] * (len(names) - 1)]),
        "LENGTH": f"{_rounded('10000 * steer.norm')} / 10000",
        "EXACT_LEAST": repr(1 - LENGTH_TOLERANCE),
        "EXACT_MOST": repr(1 + LENGTH_TOLERANCE),
        "LEAST": repr(1 - ASKED_TOLERANCE),
        "MOST": repr(1 + ASKED_TOLERANCE),
    }


def _sentence(sentence: str, between: str, terms: Iterable[str]) -> str:
    """The sentence that steers, as a Jinja expression."""
    joined = f" ~ {_literal(between)} ~ ".join(terms)
    return f"{_literal(f'{sentence} ')} ~ {joined}"


def _rounded(number: str) -> str:
    """A number as a Jinja expression, as another that is rounded to a whole one, half to even.

    Beyond 2^52 a double is whole: the sum has dropped the number's fraction.
    """
    return f"({number} + {WHOLE} - {WHOLE})"


def _literal(text: str) -> str:
    """A text as a Jinja string."""
    return json.dumps(text)
