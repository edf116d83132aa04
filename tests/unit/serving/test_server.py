"""vLLM's OpenAI-compatible server steers a saved policy, with nothing of this package in it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from dpa.config.chat import ModelsConfig
from dpa.config.steering import ObjectiveConfig
from dpa.serving.steering import PolicySteering
from dpa.text.prompts import direction_system_prompt, messages
from dpa.text.tokenization import ChatTokenizer
from tests.support.chat_tokenizers import save_policy

NAMES = ["helpfulness", "verbosity"]
MODELS = ModelsConfig(add_bos="auto", chat_template_date="2001-02-03")
QUESTION = "Tell me about the otter."


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server of a tiny policy whose BOS its template does not write."""
    pytest.importorskip("vllm")
    folder = save_policy(tmp_path_factory.mktemp("served") / "policy", "zephyr")
    objectives = [ObjectiveConfig(name=name, outputs={name: 1.0}) for name in NAMES]
    steering = PolicySteering(takes="direction", objectives=objectives)
    steering.furnish(folder, {"models": MODELS.model_dump(mode="json")})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.with_name("server.log")
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder,
             "--served-model-name", "policy", "--host", "127.0.0.1", "--port", str(port),
             "--dtype", "float32", "--enforce-eager", "--max-model-len", "512"],
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"},
            cwd=folder.parent, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health")
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(1)
        yield url, folder
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def ask(url: str, path: str, **body):
    """What the server answers to a question, with its status."""
    content = {"model": "policy", "messages": messages(QUESTION, None), **body}
    request = urllib.request.Request(
        url + path, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return 200, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_takes_the_direction(server):
    url, folder = server
    chat = ChatTokenizer.load(folder, MODELS)
    expected = chat.prompt_ids(messages(QUESTION, direction_system_prompt(NAMES, [0.8, -0.6])))
    steered = {"chat_template_kwargs": {"direction": [0.8, -0.6]}}
    _, tokens = ask(url, "/tokenize", **steered)
    assert tokens["tokens"] == expected
    _, answer = ask(url, "/v1/chat/completions", max_tokens=8, **steered)
    assert answer["usage"]["prompt_tokens"] == len(expected)
    plain = len(chat.prompt_ids(messages(QUESTION, None)))
    # A misspelt key is dropped: the policy is not steered.
    for body in ({}, {"chat_template_kwargs": {"directions": [0.8, -0.6]}}):
        _, answer = ask(url, "/v1/chat/completions", max_tokens=8, **body)
        assert answer["usage"]["prompt_tokens"] == plain
    for wrong, reason in (
        ([0.8, -0.8], "nearest unit vector: 0.7071,-0.7071"),
        ([1], "expected a list of 2 numbers, one each for helpfulness, verbosity"),
    ):
        code, answer = ask(url, "/v1/chat/completions", chat_template_kwargs={"direction": wrong})
        assert code == 400
        assert reason in answer["error"]["message"]
