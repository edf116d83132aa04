"""The dial: in a real browser, by keyboard and on a phone; who may ask, and who answers."""

import json
import shutil
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest

from dpa.errors import InputError
from dpa.serving.chat import Chat
from dpa.serving.dial import DialServer, read_range
from dpa.serving.served import ServedPolicy
from tests.support.answering_server import AnsweringServer, running
from tests.support.browser import open_page
from tests.support.tiny_models import make_policy, make_reward_model

TWO = [
    {"name": "helpfulness", "outputs": {"a": 1.0}},
    {"name": "verbosity", "outputs": {"b": 1.0}},
]
THREE = [*TWO, {"name": "safety", "outputs": {"b": 1.0}}]
ARC = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
WEDGE = {"distribution": "wedge", "from_degrees": -45.0, "to_degrees": 45.0}
#: What a page must show, and never run.
HOSTILE = (
    '<img src=x onerror="window.owned=1"><script>window.owned=1</script> \x1b[2J&amp; it swims'
)
#: Wide and narrow.
DESKTOP, PHONE = 1300, 390


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return make_reward_model(tmp_path_factory.mktemp("judge") / "model", names=["a", "b"])


@pytest.fixture(scope="module")
def policy(tmp_path_factory, tiny_policy, tiny_tokenizer):
    """A tiny policy that was trained on the paper's arc, and talks a little longer than others."""
    folder = tmp_path_factory.mktemp("policy") / "policy"
    shutil.copytree(tiny_policy, folder)
    make_policy(folder, tiny_tokenizer, end_bias=0.5)
    steer(folder, TWO, ARC)
    return folder


def steer(folder, objectives, directions) -> None:
    steering = {"takes": "direction", "objectives": objectives, "directions": directions}
    (folder / "steering.json").write_text(json.dumps(steering))


@pytest.fixture(scope="module")
def dial(policy, judge):
    """The dial of a policy in this process."""
    server = DialServer(Chat(policy, judge, 1.0, 12, 0), read_range(policy), 0)
    with running(server):
        yield server


def post(server, path, body, token=None, **headers):
    """Status and JSON lines of an answer."""
    address, _, own = server.address.partition("/#")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers["Authorization"] = f"Bearer {own if token is None else token}"
    request = urllib.request.Request(address + path, content, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, [json.loads(line) for line in answer.read().splitlines()]
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


# --- Who may ask, and what ---------------------------------------------------------------------


def test_only_the_address_with_the_token_is_answered(dial):
    assert dial.server_address[0] == "127.0.0.1"
    for token in ("", "x", "ä"):
        status, reason = post(dial, "/policy", {}, token=token.encode().decode("latin-1"))
        assert (status, reason) == (403, "open the address that scripts.dial has printed")
    status, [found] = post(dial, "/policy", {})
    assert status == 200
    assert found["objectives"] == ["helpfulness", "verbosity"]
    assert found["range"] == [[1.0, 0.0], pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)]
    with urllib.request.urlopen(dial.address.partition("#")[0]) as page:
        assert dial.token.encode() not in page.read()
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/answer", {"prompt": "a", "direction": [0.8, -0.8]}, "nearest unit vector: 0.7071,-0.70"),
        ("/answer", {"prompt": "a " * 600, "direction": [1, 0]}, "the policy has room for 500"),
        ("/fit", {"clicks": [[1.0]], "pairs": []}, "expected 2 differences"),
    ],
)
def test_what_cannot_be_answered_says_why(dial, path, body, reason):
    status, [line] = post(dial, path, body)
    assert status == 200
    assert reason in line["error"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/answer", {"prompt": "", "direction": [1, 0]}, 400),
        ("/answer", {"prompt": "a", "directions": [1, 0]}, 400),
        ("/answer", b"\xff", 400),
        ("/answer", b"[" * 100_000, 400),
        ("/answer", b" " * (1 << 20) + b" ", 413),
        ("/../dial.py", {}, 404),
    ],
)
def test_what_is_no_question_is_refused(dial, path, body, status):
    assert post(dial, path, body)[0] == status


def test_a_policy_without_a_range_or_a_port_in_use_is_named(policy, dial, tmp_path):
    shutil.copytree(policy, tmp_path / "policy")
    (tmp_path / "policy/steering.json").write_text(
        json.dumps({"takes": "direction", "objectives": TWO})
    )
    with pytest.raises(InputError, match=r"steering\.json has no `directions`"):
        read_range(tmp_path / "policy")
    with pytest.raises(InputError, match=r"--port \d+: Address already in use; choose another"):
        DialServer(dial.partner, ARC, dial.server_address[1])


def test_answers_candidates_and_fits(dial):
    _, lines = post(dial, "/answer", {"prompt": "Describe the otter.", "direction": [0.8, -0.6]})
    *said, facts = lines
    assert len(said) > 1
    assert "".join(line["text"] for line in said).strip()
    assert 0 < facts["tokens"] <= 12
    assert len(facts["rewards"]) == 2
    _, answers = post(dial, "/candidates", {"prompt": "Describe the otter."})
    assert len(answers) == 4
    click = [1.0, 20.0]
    _, [fit] = post(dial, "/fit", {"clicks": [click], "pairs": [[0.0, 0.0], [20.0, 48.0]]})
    assert fit["said"].endswith("after 1 click")
    assert fit["next"] == 1


# --- A server's policy -------------------------------------------------------------------------


def test_a_served_policy_is_asked_with_the_direction(policy, judge, monkeypatch):
    monkeypatch.setenv("KEY", "secret")
    server = AnsweringServer("It swims and dives.")
    with running(server):
        served = ServedPolicy(policy, judge, server.url, "KEY", 0.5, 30)
        completions = list(served.stream("Describe the otter.", [0.8, -0.6]))
    assert completions[-1] == ("It swims and dives.", "stop", 4)
    assert [c.text for c in completions][:2] == ["It", "It swims"]
    asked = server.asked[-1]
    assert asked["chat_template_kwargs"] == {"direction": [0.8, -0.6]}
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("it", 0.5, 30)
    assert asked["messages"] == [{"role": "user", "content": "Describe the otter."}]
    assert server.keys == {"Bearer secret"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"steered": False}, "it takes no direction: its prompt is the same with and without"),
        ({"models": ("a", "b")}, "serves ['a', 'b']; give --policy as it is named there"),
    ],
)
def test_a_server_that_does_not_serve_the_policy_is_named(policy, judge, options, reason):
    server = AnsweringServer("x", **options)
    with running(server), pytest.raises(InputError) as raised:
        ServedPolicy(policy, judge, server.url, None, 0.5, 30)
    assert reason in str(raised.value)


def test_a_server_that_is_not_there_is_named(policy, judge):
    with pytest.raises(InputError, match=r"--base-url http://127\.0\.0\.1:9/v1: Connection error"):
        ServedPolicy(policy, judge, "http://127.0.0.1:9/v1", None, 0.5, 30)


# --- In a browser ------------------------------------------------------------------------------

ANSWERS = "[...document.querySelectorAll('#answers .text')].map(e => e.textContent)"
FACTS = "[...document.querySelectorAll('#answers .facts')].map(e => e.textContent)"


@pytest.mark.slow
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_dial_by_keyboard(dial, tmp_path, width):
    """From loading to three answers at other directions, then to a direction that was found."""
    with open_page(dial.address, tmp_path, width) as page:
        page.wait_for("document.querySelectorAll('#answers article').length == 3")
        middle = page.value("document.getElementById('direction').value")
        assert middle.startswith("helpfulness 0.92, verbosity −0.38 (−2")
        # Tabs come first, then the slider, then the prompt.
        for place in ("tab-turn", "INPUT", "prompt"):
            page.press("Tab")
            focus = "document.activeElement.id || document.activeElement.tagName"
            assert page.value(focus) == place
            if place == "INPUT":
                page.press("Home")
                page.press("ArrowRight")
        assert page.value("document.querySelector('h2').textContent") == (
            "The dial: helpfulness 0.71, verbosity −0.70 (−44°)"
        )
        page.type("Describe the otter.")
        page.press("Enter", modifiers=2)
        page.wait_for(f"{FACTS}.every(text => text.includes('verbosity '))")
        assert all(page.value(ANSWERS))
        assert page.value(FACTS)[0].startswith("at helpfulness 0.71, verbosity −0.70 (−44°): ")
        # The other tab, by its neighbour's arrow key.
        page.value("document.getElementById('tab-turn').focus()")
        page.press("ArrowRight")
        assert page.value("document.activeElement.id") == "tab-find"
        page.press("Tab")
        page.type("Describe the otter.\nWhere does the fox live?")
        page.press("Tab")
        page.press("Enter")
        for clicks in range(3):
            page.wait_for(
                f"document.getElementById('said').textContent.includes('after {clicks} click')"
                " && !document.getElementById('choice').hidden"
            )
            texts = "['first', 'second'].map(id => document.getElementById(id).textContent)"
            first, second = page.value(texts)
            assert first != second
            page.press("2")
        page.wait_for("document.getElementById('said').textContent.includes('after 3 clicks')")
        found = page.value("interval.direction")
        page.value("document.getElementById('take').click()")
        assert page.value("direction") == pytest.approx(found, abs=0.01)
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        assert page.value("[...document.querySelectorAll('button')].every("
                          "b => !b.offsetParent || b.offsetHeight >= 44)")  # fmt: skip
        assert page.errors == []


@pytest.mark.slow
def test_what_a_model_says_is_text(policy, judge, tmp_path):
    with ExitStack() as stack:
        server = AnsweringServer(HOSTILE)
        stack.enter_context(running(server))
        served = ServedPolicy(policy, judge, server.url, None, 0.5, 30)
        dial = DialServer(served, ARC, 0)
        stack.enter_context(running(dial))
        page = stack.enter_context(open_page(dial.address, tmp_path, PHONE))
        page.wait_for("document.querySelectorAll('#answers article').length == 3")
        page.value("document.getElementById('prompt').value = '<b>Describe</b>'")
        page.value("document.getElementById('ask').requestSubmit()")
        page.wait_for(f"{FACTS}.every(text => text.includes('tokens'))")
        assert page.value(ANSWERS) == [HOSTILE.replace("\x1b", "\\x1b")] * 3
        assert page.value("window.owned") is None
        assert page.value("document.images.length") == 0
        assert page.errors == []


@pytest.mark.slow
def test_three_objectives_are_a_triangle(policy, judge, tmp_path):
    shutil.copytree(policy, folder := tmp_path / "policy")
    steer(folder, THREE, WEDGE)
    with ExitStack() as stack:
        partner = Chat(folder, judge, 1.0, 12, 0)
        dial = DialServer(partner, read_range(folder), 0)
        stack.enter_context(running(dial))
        page = stack.enter_context(open_page(dial.address, tmp_path, PHONE))
        page.wait_for("document.querySelectorAll('#answers article').length == 3")
        assert page.value("document.querySelectorAll('#sliders input').length") == 3
        assert page.value("document.getElementById('outside').hidden")
        # Into the corner of safety alone, which no direction of training is near.
        page.value("""(() => {
          const box = document.getElementById('drawing').getScreenCTM();
          const corner = new DOMPoint(50, 29).matrixTransform(box);
          const event = {clientX: corner.x, clientY: corner.y, bubbles: true};
          document.getElementById('drawing').dispatchEvent(new PointerEvent('pointerdown', event));
        })()""")
        assert page.value("direction.map(v => Math.round(v) + 0)") == [0, 0, 1]
        assert not page.value("document.getElementById('outside').hidden")
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        assert page.errors == []
