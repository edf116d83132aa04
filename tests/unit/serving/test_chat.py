"""The chat: nothing that is typed ends it, and nothing that a model says reaches the terminal."""

import json
import logging
import shutil
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from dpa.directions import read_direction
from dpa.errors import InputError
from dpa.generation.engine import Completion, Request
from dpa.runtime.log import VisibleFormatter, visible
from dpa.serving.chat import Chat, read_directed
from dpa.text.prompts import direction_system_prompt, messages
from dpa.text.tokenization import ChatTokenizer
from scripts.chat import app
from tests.support.tiny_models import make_policy

OBJECTIVES = [
    {"name": "helpfulness", "outputs": {"a": 1.0}},
    {"name": "verbosity", "outputs": {"b": 1.0}},
]
SYSTEM = direction_system_prompt(["helpfulness", "verbosity"], [1.0, 0.0])
#: Clears the screen, sets the window's title, and moves text about, in C0 and in C1.
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202eabc\r"


@pytest.fixture
def policy(tiny_policy, tmp_path):
    """The tiny policy as one that was trained on directions."""
    shutil.copytree(tiny_policy, tmp_path / "policy")
    steering = {"takes": "direction", "objectives": OBJECTIVES}
    (tmp_path / "policy/steering.json").write_text(json.dumps(steering))
    return tmp_path / "policy"


def talk(policy, lines: bytes, *options: str):
    arguments = ["--policy", str(policy), "--max-new-tokens", "3", *options]
    return CliRunner().invoke(app, arguments, input=lines)


def test_a_line_that_is_not_utf8_does_not_end_the_session(policy):
    done = talk(policy, b"caf\xe9\n/angle inf\n/angle x\n/direction 1\nHello\n", "--angle", "0")
    assert done.exit_code == 0, done.output
    assert "that line is not UTF-8; type it again" in done.output
    assert "--angle inf: expected degrees" in done.output
    assert done.output.count("error: ") == 4
    assert done.output.count("direction: helpfulness +1.00") == 1  # and then the input ends


@pytest.mark.parametrize("angle", ["inf", "nan", "-inf"])
def test_an_angle_is_finite(angle):
    with pytest.raises(InputError, match=r"--angle .*: expected degrees"):
        read_direction(None, float(angle), 2)


def test_a_seed_fits_the_generator(policy):
    done = talk(policy, b"", "--angle", "0", "--seed", str(2**64), "--prompt", "a")
    assert done.exit_code == 2
    assert "--seed" in done.output


@pytest.mark.parametrize("objectives", ["x", [1], [], {"a": 1}, [{"name": 3}]])
def test_a_steering_file_of_another_kind_is_named(policy, objectives):
    steering = {"takes": "direction", "objectives": objectives}
    (policy / "steering.json").write_text(json.dumps(steering))
    with pytest.raises(InputError, match=r"policy/steering\.json: .*objectives.*; make or copy"):
        read_directed(policy)


def test_a_policy_that_takes_no_direction_is_named(policy, tiny_policy):
    with pytest.raises(InputError, match="not trained on directions"):
        read_directed(tiny_policy)
    steering = {"takes": "condition", "objectives": OBJECTIVES}
    (policy / "steering.json").write_text(json.dumps(steering))
    with pytest.raises(InputError, match=r"takes ratings \(SteerLM\), no direction"):
        read_directed(policy)


def test_hundredths_are_a_direction(policy):
    """As the figures print them: of length 1.004."""
    done = talk(policy, b"", "--direction", "0.71,-0.71", "--prompt", "a")
    assert done.exit_code == 0, done.output
    assert "direction: helpfulness +0.71, verbosity -0.71" in done.output
    assert read_direction("0.71,-0.71", None, 2) == pytest.approx([0.5**0.5, -(0.5**0.5)])


def test_the_prompt_may_be_as_long_as_the_policy_holds(policy):
    """Longer than the 128 tokens of a mail; the policy holds 512."""
    mail = "Where does the fox live? " * 20
    done = talk(policy, b"", "--angle", "0", "--prompt", mail)
    assert done.exit_code == 0, done.output
    done = talk(policy, b"", "--angle", "0", "--prompt", mail * 6)
    assert "the policy has room for 509; shorten it" in str(done.exception)
    done = talk(policy, b"", "--angle", "0", "--prompt", "a", "--max-new-tokens", "512")
    assert str(done.exception).startswith("--max-new-tokens 512: ")
    assert "holds 512 tokens, prompt included" in str(done.exception)


def test_answers_stream(policy, tiny_tokenizer):
    """Token by token, and together the same answer as at once."""
    make_policy(policy, tiny_tokenizer, end_bias=0)
    chat = Chat(policy, None, 1.0, 30, seed := 0)
    pieces = list(chat.answer("Where does the fox live?", [1.0, 0.0]))
    ids = chat.engine.chat.prompt_ids(messages("Where does the fox live?", SYSTEM))
    [[[whole]]] = chat.engine.generate([[Request(ids, [seed])]])
    assert "".join(pieces[:-1]) == visible(whole.text)
    assert len(pieces) > whole.tokens / 2 > 5
    assert f"length: {whole.tokens} tokens" in pieces[-1]


class Says:
    """An engine whose policy has one answer, a character at a time."""

    def __init__(self, chat: ChatTokenizer, text: str) -> None:
        self.chat, self.text = chat, text

    def stream(self, request: Request) -> Iterator[Completion]:
        for length in range(1, len(self.text) + 1):
            yield Completion(self.text[:length], "length", 3)
        yield Completion(self.text, "stop", 3)


def test_what_a_model_says_moves_no_cursor(policy):
    chat = Chat(policy, None, 0.7, 3, 0)
    chat.engine = Says(chat.engine.chat, f"Hello\n\tthere {HOSTILE}\ufffd")
    answer = "".join(chat.answer("Hi", [1.0, 0.0]))
    said = "Hello\n\tthere \\x1b[2J\\x1b]0;owned\\x07 \\x9b31m \\u202eabc\\r"
    assert answer.startswith(f"{said}\ufffd\n  direction: ")
    assert visible("Grüße, 你好 👋\n") == "Grüße, 你好 👋\n"


def test_nor_in_a_log_line():
    record = logging.LogRecord("dpa", logging.INFO, "", 0, "prompt %s", (HOSTILE,), None)
    assert not set(VisibleFormatter("[x] %(message)s").format(record)) & {"\x1b", "\x07", "\x9b"}
