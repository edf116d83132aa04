"""The real command on a tiny policy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.records import Prompt, Sample
from dpa.text.prompts import prompt_id
from tests.support.script_processes import HEAVY, processes
from tests.support.snakemake_runs import CANARIES, carriers, everything_written

ROOT = Path(__file__).resolve().parents[2]
SAMPLING = {
    "engine": "transformers",
    "kv_cache_dtype": "auto",
    "temperature": 1.0,
    "max_new_tokens": 16,
    "max_prompt_tokens": 80,
    "prompts_per_chunk": 2,
    "rows_per_batch": 16,
    "max_truncated_fraction": 1.0,
}


def run(*options, start=("-m", "scripts.sample_responses"), **environment):
    return subprocess.run(
        [sys.executable, *start, *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


@pytest.fixture
def options(tmp_path, tiny_policy):
    texts = ["Describe the otter.", "Where?", "Why?"]
    prompts = [Prompt(prompt_id=prompt_id(t), prompt=t, source="test") for t in texts]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    return [
        *("--policy", tiny_policy, "--prompts", tmp_path / "prompts.jsonl", "--seed", 0),
        *("--directions", '{"distribution": "arc", "from_degrees": -45, "to_degrees": 0}'),
        *("--objective-names", "helpfulness,verbosity", "--directions-per-prompt", 2),
        *("--responses-per-direction", 3, "--sampling", json.dumps(SAMPLING)),
        *("--shard", 0, "--shards", 2, "--output", tmp_path / "sampled.jsonl"),
    ]


@pytest.mark.slow
def test_a_shard_of_iteration_one(options, tmp_path):
    conditions = tmp_path / "conditions.json"
    conditions.write_text('{"targets": [[80, 20]], "curve": [[80, 20]]}')
    options += ["--iteration", 1, "--conditions", conditions, "--noise", 0]
    done = processes(HEAVY).run("sample_responses", options, tmp_path)
    assert done.code == 0, done.output
    records = read_jsonl(tmp_path / "sampled.jsonl", Sample)
    # Two prompts (the first of two chunks), six samples each.
    assert [(r.direction_index, r.sample_index) for r in records] == 2 * [(-1, i) for i in range(6)]
    assert [80, 20] in [r.condition for r in records]
    assert "12/12 responses" in done.output
    assert "tokens/s" in done.output


def test_a_scalar_method_is_told_no_direction(options, tmp_path):
    fixed = '{"distribution": "fixed", "direction": [0.8, -0.6]}'
    options += ["--iteration", 1, "--directions", fixed]
    done = processes(HEAVY).run("sample_responses", options, tmp_path)
    assert done.code == 0, done.output
    records = read_jsonl(tmp_path / "sampled.jsonl", Sample)
    assert {(r.direction_index, r.direction) for r in records} == {(0, None), (1, None)}
    assert len({r.seed for r in records}) == len(records) == 12


def test_mistakes_are_explained(options):
    done = run(*options, "--iteration", 1, "--directions", '{"distribution": "ark"}')
    assert done.returncode == 2
    assert "--directions" in done.stderr
    assert "'ark'" in done.stderr
    assert "Traceback" not in done.stderr


def hung(code: int, said: str, folder: Path) -> bytes:
    """What a job that was ended because it hung has written."""
    assert code == 75, said
    assert "made no progress" in said
    assert "compute.hang_minutes" in said
    assert "in stuck" in said  # the place where it hangs
    assert not (folder / "sampled.jsonl").exists()
    written = (folder / "sampled.jsonl.partial").read_bytes()
    assert written
    return written


def resumed(code: int, said: str, folder: Path, written: bytes) -> None:
    assert code == 0, said
    assert "resuming after" in said
    assert (folder / "sampled.jsonl").read_bytes().startswith(written)


@pytest.mark.slow
def test_an_engine_that_hangs_ends_the_job_which_resumes(options, tmp_path):
    options[options.index("--shards") + 1] = 1
    options += ["--iteration", 2]
    start = processes(HEAVY)
    done = start.run(
        "sample_responses", options, tmp_path, fault="tests.support.faults:engine_hangs",
        environment={"DPA_HANG_MINUTES": "0.1"},
    )  # fmt: skip
    written = hung(done.code, done.output, tmp_path)
    done = start.run("sample_responses", options, tmp_path)
    resumed(done.code, done.output, tmp_path, written)


#: The command with vLLM, whose engine blocks in native code, for ten minutes, in its 20th step.
STUCK = """
import ctypes, sys
sys.argv[0] = "sample_responses.py"  # partial work is known by the script's code
import vllm
from vllm.v1.engine.llm_engine import LLMEngine
import dpa.generation.vllm_engine as v
from dpa.runtime.cli import run_app
from scripts.sample_responses import app

v.SAMPLES_IN_FLIGHT = 1
step, steps = LLMEngine.step, []
def stuck(self, *arguments):
    steps.append(0)
    if len(steps) == 20:
        ctypes.CDLL(None).sleep(600)
    return step(self, *arguments)
LLMEngine.step = stuck
run_app(app)
"""


@pytest.mark.vllm
def test_vllm_that_hangs_ends_the_job_which_resumes(options, tmp_path):
    pytest.importorskip("vllm")
    # vLLM mixes chunks in its batch: one at a time here, or none would be done by step 20.
    options[options.index("--responses-per-direction") + 1] = 1
    options[options.index("--shards") + 1] = 1
    options[options.index("--sampling") + 1] = json.dumps(SAMPLING | {"engine": "vllm"})
    options += ["--iteration", 2]
    done = run(*options, start=("-c", STUCK), DPA_HANG_MINUTES="0.5")
    written = hung(done.returncode, done.stderr, tmp_path)
    done = run(*options)
    resumed(done.returncode, done.stderr, tmp_path, written)


@pytest.mark.vllm
def test_vllm_writes_and_prints_no_key(options, tmp_path):
    """What vLLM keeps below the home folder (caches, usage statistics) included."""
    pytest.importorskip("vllm")
    options[options.index("--sampling") + 1] = json.dumps(SAMPLING | {"engine": "vllm"})
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    done = run(*options, "--iteration", 2, VLLM_LOGGING_LEVEL="DEBUG", **places, **CANARIES)
    assert done.returncode == 0, done.stderr
    assert "DEBUG" in done.stdout + done.stderr
    written = [("printed", (done.stdout + done.stderr).encode()), *everything_written(tmp_path)]
    assert {"sampled.jsonl", "sampled.jsonl.meta.json"} <= {Path(path).name for path, _ in written}
    for name, key in CANARIES.items():
        assert carriers(key, written) == [], name
