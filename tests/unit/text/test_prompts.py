import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpa.errors import InputError
from dpa.records import Turn
from dpa.text.prompts import (
    condition_system_prompt,
    direction_system_prompt,
    messages,
    normalise,
    parse_direction,
    prompt_id,
    reward_input,
    reward_prefix,
)

NAMES = ["helpfulness", "verbosity"]


class TestIdentity:
    @pytest.mark.parametrize(
        "same", ["What is it?", " What  is\nit? ", "What\u00a0is it?", "What\tis it?\r\n"]
    )
    def test_white_space_does_not_matter(self, same):
        assert prompt_id(same) == prompt_id("What is it?")

    def test_unicode_composition_does_not_matter(self):
        assert prompt_id("caf\u00e9") == prompt_id("cafe\u0301")

    def test_case_and_roles_matter(self):
        turns = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
        swapped = [Turn("user", "a"), Turn("user", "b"), Turn("user", "c")]
        assert len({prompt_id(p) for p in ("a", "A", turns, swapped)}) == 4

    def test_does_not_change_between_versions(self):
        assert prompt_id("What is it?") == "bbff7b98d6da7061"

    @given(st.text())
    def test_normalising_twice_changes_nothing(self, text):
        assert normalise(normalise(text)) == normalise(text)


class TestDirectionPrompt:
    def test_is_the_published_one(self):
        assert direction_system_prompt(NAMES, [0.8, -0.6]) == (
            "You are a helpful, respectful, and honest assistant who always responds to the user "
            "in a harmless way. Your response should maximize weighted rating = "
            "helpfulness*80 + verbosity*-60"
        )

    def test_further_objectives_have_the_same_form(self):
        prompt = direction_system_prompt([*NAMES, "harmlessness"], [0.7, -0.1, 0.7071])
        assert prompt.endswith("= helpfulness*70 + verbosity*-10 + harmlessness*71")

    @given(st.floats(-180, 180))
    def test_round_trips_to_within_rounding(self, degrees):
        from dpa.directions import from_degrees

        direction = from_degrees(degrees)
        found = parse_direction(NAMES, direction_system_prompt(NAMES, direction))
        assert found == pytest.approx(direction, abs=0.005 + 1e-9)

    @pytest.mark.parametrize(
        "prompt",
        [
            "You are a helpful assistant.",
            direction_system_prompt(NAMES[:1], [1.0]),
            direction_system_prompt(NAMES, [1.0, 0.0]) + " Thanks.",
            direction_system_prompt(["verbosity", "helpfulness"], [1.0, 0.0]),
        ],
    )
    def test_other_system_prompts_are_refused(self, prompt):
        with pytest.raises(InputError, match=re.escape(repr(prompt))):
            parse_direction(NAMES, prompt)

    def test_conditions(self):
        assert condition_system_prompt(NAMES, [80, 20]).endswith(
            "Your response should have rating helpfulness=80, verbosity=20"
        )


class TestMessages:
    def test_system_in_front_and_response_behind(self):
        assert messages("Why?", "S", "So.") == [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "So."},
        ]

    def test_a_conversations_own_system_text_comes_before_the_directions_sentence(self):
        turns = [Turn("system", "You are a pirate."), Turn("user", "Why?")]
        asked = messages(turns, direction_system_prompt(NAMES, [0.8, -0.6]))
        assert asked == [
            {
                "role": "system",
                "content": "You are a pirate. Your response should maximize weighted rating = "
                "helpfulness*80 + verbosity*-60",
            },
            {"role": "user", "content": "Why?"},
        ]
        assert parse_direction(NAMES, asked[0]["content"]) == [0.8, -0.6]
        asked = messages(turns, condition_system_prompt(NAMES, [80, 20]))
        assert asked[0]["content"].startswith("You are a pirate. Your response should have rating")
        assert [t["content"] for t in messages(turns, None)] == ["You are a pirate.", "Why?"]


class TestRewardInput:
    def test_is_the_published_one(self):
        assert reward_input("Why?", "So.") == (
            "[INST] You must read the following conversation carefully and rate the assistant's "
            "response from score 0-100 in these aspects: helpfulness, correctness, coherence, "
            "honesty, complexity, verbosity\n\nUser: Why?\n\nAssistant: So. [/INST]"
        )

    def test_starts_with_the_prefix_that_responses_share(self):
        turns = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
        prefix = reward_prefix(turns)
        assert prefix.endswith("User: a\n\nAssistant: b\n\nUser: c\n\nAssistant: ")
        assert reward_input(turns, "d") == prefix + "d [/INST]"
