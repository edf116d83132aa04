"""SIGKILL and SIGTERM at random moments, in every kind of stage, and then the same command again.

Whatever the moment: an artefact is whole or not there, the same command completes, its bytes are
those of the undisturbed run, and at most one chunk is done again for each kill.
"""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.faults import TRACE
from tests.support.finished_run import FinishedRun, artefacts, contents, remove

#: (script, part of the log's path, kills), in the order in which they need each other.
STAGES = [
    ("train_reward_model", "", 3),
    ("annotate_responses", "/0", 2),
    ("sample_responses", "dpa/iter1-0", 5),
    ("score_responses", "dpa/iter1-0", 4),
    ("select_responses", "dpa/iter1", 3),
    ("finetune_policy", "dpa/iter1", 4),
    ("sample_responses", "dpa/iter2-1", 4),
    ("score_responses", "dpa/iter2-1", 3),
    ("select_responses", "dpa/iter2", 2),
    ("sample_soup", "", 4),
    ("measure_divergence", "dpa-2", 3),
    ("collect_validation_rewards", "", 1),
    ("plot_pareto_front", "", 2),
]
#: Scripts that go on behind their last complete chunk, and the prompts of a chunk in this run.
CHUNK = {"sample_responses": 1, "score_responses": 4}


def test_there_are_enough_kills():
    assert sum(kills for *_, kills in STAGES) >= 30


def whole_or_absent(finished_run: FinishedRun, command, folder: Path) -> None:
    for artefact in artefacts(command):
        if (folder / artefact).exists():
            found, expected = contents(folder / artefact), contents(finished_run.folder / artefact)
            if "--output-figures" in command.arguments:  # its files are, one by one
                found = {name: data for name, data in found.items() if ".partial" not in name}
                expected = {name: data for name, data in expected.items() if name in found}
            assert found == expected, artefact


def complete(command, folder: Path) -> bool:
    return all(
        (folder / artefact).exists() and (folder / f"{artefact}.meta.json").exists()
        for artefact in artefacts(command)
    )


@pytest.fixture(scope="module")
def survivor(finished_run, tmp_path_factory) -> Path:
    """The run in which every stage of STAGES is killed, one after the other."""
    stages = [finished_run.command(script, part) for script, part, _ in STAGES]
    return finished_run.copy(tmp_path_factory.mktemp("survivor"), without=stages)


@pytest.mark.parametrize(("script", "part", "kills"), STAGES)
def test_a_killed_stage_completes(finished_run, survivor, count, tmp_path, script, part, kills):
    command = finished_run.command(script, part)
    moments = random.Random(f"{script} {part}")
    seconds = finished_run.seconds[command.log]
    trace = tmp_path / "trace"
    trace.touch()
    options = {"fault": "tests.support.faults:trace", "environment": {TRACE: str(trace)}}
    killed = finished = 0
    while killed < kills:
        assert finished <= 8 * kills, "the stage ends before it can be killed"
        job = finished_run.processes.start(script, command.arguments, survivor, **options)
        time.sleep(moments.uniform(0, seconds))
        job.kill()
        ended = job.wait()
        whole_or_absent(finished_run, command, survivor)
        if ended.code == -signal.SIGKILL and not complete(command, survivor):
            killed += 1
        else:  # faster than the kill, or killed while it ended with all done
            assert ended.code in (0, -signal.SIGKILL), ended.output
            finished += 1
            seconds *= 0.8
            remove(command, survivor)
    done = finished_run.run(command, survivor, **options)
    assert done.code == 0, done.output
    if script in CHUNK:
        # Sampling has a prompt in a chunk, scoring calls for each prompt; a shard has four.
        least = 4 * (finished + 1)
        assert least <= trace.stat().st_size <= least + killed * CHUNK[script]
    assert not list(survivor.rglob("*.partial*"))
    count(kills=killed, bytes=finished_run.same(command, survivor), lost=0)


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ("sample_responses", "dpa/iter2-0"),
        ("score_responses", "dpa/iter2-0"),
        ("finetune_policy", "dpa/iter2"),
    ],
)
def test_killed_between_an_artefact_and_its_sidecar(finished_run, tmp_path, count, script, part):
    """Nothing is sampled, scored or trained again."""
    command = finished_run.command(script, part)
    folder = finished_run.copy(tmp_path, without=[command])
    kill = "tests.support.faults:killed_before_the_sidecar"
    assert finished_run.run(command, folder, fault=kill).code == -signal.SIGKILL
    trace = tmp_path / "trace"
    trace.touch()
    options = {"fault": "tests.support.faults:trace", "environment": {TRACE: str(trace)}}
    again = finished_run.run(command, folder, **options)
    assert again.code == 0, again.output
    assert trace.stat().st_size == 0
    if script == "finetune_policy":
        assert "is trained already" in again.output
        assert " steps" not in again.output
    sidecar = command.value("--output") + ".meta.json"
    assert (folder / sidecar).read_bytes() == (finished_run.folder / sidecar).read_bytes()
    count(kills=1, bytes=finished_run.same(command, folder), lost=0)


@pytest.mark.parametrize("script", ["sample_responses", "finetune_policy"])
def test_sigterm_ends_a_stage_at_once(finished_run, tmp_path, count, script):
    """As a scheduler sends it, some seconds before SIGKILL."""
    part = "dpa/iter2-0" if script == "sample_responses" else "dpa/iter2"
    command = finished_run.command(script, part)
    folder = finished_run.copy(tmp_path, without=[command])
    trace = tmp_path / "trace"
    trace.touch()
    options = {"fault": "tests.support.faults:trace", "environment": {TRACE: str(trace)}}
    job = finished_run.processes.start(script, command.arguments, folder, **options)
    while "training on" not in job.log.read_text() and not trace.stat().st_size:
        time.sleep(0.002)
    asked = time.monotonic()
    job.terminate()
    assert job.wait().code != 0
    assert time.monotonic() - asked < 20
    whole_or_absent(finished_run, command, folder)
    done = finished_run.run(command, folder)
    assert done.code == 0, done.output
    count(faults=1, bytes=finished_run.same(command, folder), lost=0)
