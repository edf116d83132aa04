"""The chat: nothing that is typed ends it, and nothing that a model says reaches the terminal."""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator

import pytest
from typer.testing import CliRunner

from dpa.chat import Chat, policy_objectives
from dpa.directions import read_direction
from dpa.errors import InputError
from dpa.generation.engine import Chunk, ChunkResult, Completion
from dpa.runtime.log import VisibleFormatter, visible
from dpa.text.tokenization import ChatTokenizer
from scripts.chat import app

OBJECTIVES = [
    {"name": "helpfulness", "outputs": {"a": 1.0}},
    {"name": "verbosity", "outputs": {"b": 1.0}},
]
#: Clears the screen, sets the window's title, and moves text about, in C0 and in C1.
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202eabc\r"


@pytest.fixture
def policy(tiny_policy, tmp_path):
    """The tiny policy as one that was trained on directions."""
    shutil.copytree(tiny_policy, tmp_path / "policy")
    (tmp_path / "policy.meta.json").write_text(json.dumps({"objectives": OBJECTIVES}))
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


@pytest.mark.parametrize("objectives", ["x", [1], {"a": 1}, [{"name": 3}]])
def test_a_sidecar_of_another_kind_is_named(policy, objectives):
    sidecar = policy.with_name("policy.meta.json")
    sidecar.write_text(json.dumps({"objectives": objectives}))
    with pytest.raises(InputError, match=r"policy\.meta\.json: objectives: .*make the policy"):
        policy_objectives(policy)


class Says:
    """An engine whose policy has one answer."""

    def __init__(self, chat: ChatTokenizer, text: str) -> None:
        self.chat, self.text = chat, text

    def generate(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        for chunk in chunks:
            yield [[Completion(self.text, "stop", 3)] for _ in chunk]

    def close(self) -> None: ...


def test_what_a_model_says_moves_no_cursor(policy):
    chat = Chat(policy, None, 0.7, 3, 0)
    chat.engine = Says(chat.engine.chat, f"Hello\n\tthere {HOSTILE}")
    answer = chat.answer("Hi", [1.0, 0.0])
    assert answer.startswith("Hello\n\tthere \\x1b[2J\\x1b]0;owned\\x07 \\x9b31m \\u202eabc\\r")
    assert visible("Grüße, 你好 👋\n") == "Grüße, 你好 👋\n"


def test_nor_in_a_log_line():
    record = logging.LogRecord("dpa", logging.INFO, "", 0, "prompt %s", (HOSTILE,), None)
    assert not set(VisibleFormatter("[x] %(message)s").format(record)) & {"\x1b", "\x07", "\x9b"}
