"""An iteration of the quickstart on a real SLURM: parallel shards, one killed, one requeued.

The world and its data are the quickstart's, small; the models that the iteration starts from are
tiny and random, for training them would take longer than all the rest. What is submitted is real.

Runs with DPA_SLURM_TESTS=1, as root, with the packages that tests/support/slurm_cluster.py
names. Where one of them is missing it is skipped, except in CI (CI=true).
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from dpa.artefacts.jsonl import decode_lines, write_jsonl
from dpa.records import Annotation, Rating
from dpa.runtime.run_environment import CLONE
from tests.support import slurm_cluster as cluster
from tests.support.long_training import LOG, POLICY, STOPPED, add_long_training, checkpoints
from tests.support.own_data import TARGET, add_own_data, rated
from tests.support.snakemake_runs import command, copy_repository, environment, snakemake
from tests.support.tiny_models import make_chat_tokenizer, make_policy, make_reward_model

pytestmark = pytest.mark.slurm

SHARDS = 3
#: Decodes one response at a time, one prompt per chunk: slow enough to be killed on the way.
OVERLAY = f"""
extends: quickstart
shards: {SHARDS}
compute: {{gpu: true, cpus_per_gpu: 2}}
methods: [dpa]
world:
  helpsteer_rows: 50
  ultrafeedback_prompts: 60
  validation_prompts: 4
  unseen_prompts: 2
  pretraining_documents: 10
  sft_rows: 10
data: {{prompts_per_half: 18}}
sft: {{path: models/policy}}
reward_model: {{path: models/reward_model}}
dpa:
  iterations: 1
  directions_per_prompt: 2
  responses_per_direction: 8
  schedule: {{epochs: 1, max_length: 512}}
sampling:
  max_prompt_tokens: 384
  max_new_tokens: 60
  prompts_per_chunk: 1
  rows_per_batch: 1
  max_truncated_fraction: 1.0
"""
RESULTS = Path("results/mini")
SAMPLED = [RESULTS / f"dpa/iter1/sampled/{shard}.jsonl" for shard in range(SHARDS)]
#: What a user types.
LITERAL = ("--cores", "all", "--profile", "slurm", "--config", "experiment=mini", "--", "dpa")
SECONDS = 1800
#: Rows that a filter names, one by one: more bytes than an argument may have.
KEPT = 20_000


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A cluster."""
    reason = cluster.missing()
    if not os.environ.get("DPA_SLURM_TESTS"):
        reason = "starts SLURM's daemons: set DPA_SLURM_TESTS=1"
    if reason is not None:
        if os.environ.get("CI") == "true" and os.environ.get("DPA_SLURM_TESTS"):
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        cluster.start()
        yield
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def folder(slurm, tmp_path_factory) -> Path:
    """A clone in which what the iteration starts from is there already."""
    folder = copy_repository(tmp_path_factory.mktemp("slurm"))
    (folder / "experiments/mini.yaml").write_text(OVERLAY)
    pretend_gpus(folder)
    attributes = yaml.safe_load((CLONE / "config.yaml").read_text())["reward_model"]["attributes"]
    make_reward_model(folder / "models/reward_model", names=attributes, max_position_embeddings=512)
    policy = make_policy(folder / "models/policy", make_chat_tokenizer(), end_bias=0.5)
    snakemake(
        folder,
        *("--cores", "2", "--config", "experiment=mini", "--"),
        f"{RESULTS}/data/ratings.jsonl",
    )
    annotations = [
        Annotation(
            prompt_id=rating.prompt_id,
            prompt=rating.prompt,
            response=rating.response,
            attributes={},
            rewards=[50.0, float(number % 100)],
            split=rating.split,
        )
        for number, rating in enumerate(
            decode_lines(folder / RESULTS / "data/ratings.jsonl", Rating)
        )
        if rating.dataset == "ultrafeedback"
    ]
    for shard in range(SHARDS):
        path = folder / RESULTS / f"annotations/{shard}.jsonl"
        write_jsonl(path, annotations[shard::SHARDS])
    conditions = folder / RESULTS / "steerlm/conditions.json"
    conditions.parent.mkdir()
    conditions.write_text('{"targets": [[70.0, 30.0], [60.0, 60.0]], "curve": [[70, 30]]}')
    initial = folder / RESULTS / "dpa/iter0/policy"
    shutil.copytree(policy, initial)
    os.utime(initial)  # newer than what Snakemake takes it to be made from
    return folder


def pretend_gpus(folder: Path) -> None:
    """Have a clone's jobs compute on the CPU with the GPUs that SLURM pretends to give them.

    Both preflight and every job would find that torch sees none.
    """
    module = folder / "dpa/runtime/gpus.py"
    module.write_text(f"{module.read_text()}\n\ndef require_gpu() -> None:\n    pass\n")
    for results in (RESULTS, POLICY.parents[1]):
        (folder / results).mkdir(parents=True)
        (folder / results / "preflight.json").write_text("{}")


def edit_profile(folder: Path, **changes) -> None:
    """The profile as a site edits it, with settings for a small cluster without accounting."""
    profile = yaml.safe_load((CLONE / "slurm/config.yaml").read_text())
    profile["default-resources"] |= {
        "slurm_partition": "gpu",
        "cpu_partition": "cpu",
        "constraint": "a100",
    }
    profile |= {
        "slurm-status-command": "squeue",
        "slurm-init-seconds-before-status-checks": 5,
        "latency-wait": 10,
        **changes,
    }
    (folder / "slurm/config.yaml").write_text(yaml.safe_dump(profile))


class Job(dict):
    """A job as `scontrol show job` describes it, by the names of fields."""

    @property
    def rule(self) -> str:
        return re.sub(r"^rule_|_wildcards_.*", "", self["Comment"])

    @property
    def shard(self) -> int:
        return int(self["Comment"].rpartition("_")[2])

    @property
    def gpu(self) -> str:
        """Number of the GPU that it runs on."""
        return re.search(r"GRES=gpu:1\(IDX:(\d+)\)", self["line"])[1]


def jobs() -> list[Job]:
    """All jobs, those that ended too."""
    lines = cluster.call("scontrol", "-d", "-o", "show", "job", check=False).splitlines()
    return [
        Job(re.findall(r"(\w+)=(\S*)", line), line=line) for line in lines if "Comment=" in line
    ]


def sampling_jobs() -> dict[int, Job]:
    """The running jobs of sampling, by shard."""
    return {
        job.shard: job
        for job in jobs()
        if job.rule == "sample_responses" and job["JobState"] == "RUNNING"
    }


class Run:
    """A command in the background, the literal one unless it is another."""

    def __init__(self, folder: Path, name: str, arguments: Sequence[str] = LITERAL) -> None:
        self.log = folder / name
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                command(*arguments), cwd=folder, env=environment(), stdout=file, stderr=file
            )
        self.deadline = time.monotonic() + SECONDS

    def running(self) -> bool:
        """Whether it still runs; fails when it has taken too long."""
        time.sleep(0.2)
        if time.monotonic() > self.deadline:
            self.process.kill()
            pytest.fail(f"still running after {SECONDS} s:\n{self.text()}")
        return self.process.poll() is None

    def text(self) -> str:
        return self.log.read_text()[-6000:]


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_an_iteration_survives_kill_and_preemption(folder):
    edit_profile(folder, retries=0)
    first = Run(folder, "first.log")
    together: list[dict[int, str]] = []
    killed = None
    partials = [folder / f"{path}.partial" for path in SAMPLED]
    while first.running():
        found = sampling_jobs()
        together.append({shard: job.gpu for shard, job in found.items()})
        if killed is None:
            killed = next((s for s in found if size(partials[s])), None)
            if killed is not None:
                cluster.call("scancel", found[killed]["JobId"])
    assert killed is not None, first.text()
    assert first.process.returncode != 0
    # Shards ran at the same time, each on a GPU of its own, and knew which.
    most = max(together, key=len)
    assert len(most) > 1, together
    assert len(set(most.values())) == len(most)
    for shard, gpu in most.items():
        log = (folder / RESULTS / f"logs/sample_responses/dpa/iter1-{shard}.log").read_text()
        assert re.search(rf"on \S+, GPU {gpu}$", log, re.MULTILINE), log
    # One was killed on its way; the others went on to their end.
    written = partials[killed].read_bytes()
    assert written
    finished = [folder / path for shard, path in enumerate(SAMPLED) if shard != killed]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in finished]

    # The same command once more, with the profile's own retries. This time the job is put back into
    # the queue on its way, as by preemption.
    edit_profile(folder)
    second = Run(folder, "second.log")
    requeued = False
    while second.running():
        if not requeued and size(partials[killed]) > len(written):
            for job in sampling_jobs().values():
                cluster.call("scontrol", "requeue", job["JobId"])
                requeued = True
    assert second.process.returncode == 0, second.text()
    assert requeued
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in finished] == before
    assert (folder / SAMPLED[killed]).read_bytes().startswith(written)
    assert (folder / RESULTS / "dpa/iter1/policy/model.safetensors").exists()

    submitted = jobs()
    assert {job.rule for job in submitted} == {
        *("sample_responses", "score_responses", "select_responses", "finetune_policy")
    }
    states = [job["JobState"] for job in submitted if job.rule == "sample_responses"]
    assert sorted(states) == ["CANCELLED", *["COMPLETED"] * SHARDS]
    [again] = [job for job in submitted if job["Restarts"] != "0"]
    assert (again.rule, again.shard) == ("sample_responses", killed)
    log = folder / RESULTS / f"logs/sample_responses/dpa/iter1-{killed}.log"
    assert "resuming after" in log.read_text()
    assert (again["NumCPUs"], again["Requeue"], again["TimeLimit"]) == ("2", "1", "12:00:00")
    assert again["MinMemoryNode"] == "48000M"
    assert again["TresPerJob"] == "gres:gpu:1"
    for job in submitted:
        gpu = job.rule != "select_responses"
        assert ("TresPerJob" in job, job["Partition"]) == (gpu, "gpu" if gpu else "cpu")
        assert (job["Features"], job["NumNodes"]) == ("a100" if gpu else "(null)", "1")


def test_a_training_saves_before_its_time_limit(folder):
    """SLURM signals the job's step, whose Snakemake waits; the rest of the job is left alone."""
    add_long_training(folder, "compute: {gpu: true}\n")
    edit_profile(folder, retries=0)
    # Checked every 30 seconds, and early: SIGTERM comes one to two minutes after the start.
    arguments = ("--set-resources", "train_sft:runtime=17", "--config", "experiment=long")
    run = Run(
        folder, "long.log", ("--cores", "all", "--profile", "slurm", *arguments, "--", str(POLICY))
    )
    while run.running():
        pass
    assert run.process.returncode != 0
    log = (folder / LOG).read_text()
    found = re.search(STOPPED + r"$", log)
    assert found, log + run.text()
    assert f"checkpoint-{found[1]}" in checkpoints(folder)
    [job] = [job for job in jobs() if job.rule == "train_sft"]
    assert (job["JobState"], job["TimeLimit"]) == ("FAILED", "00:17:00")


@pytest.fixture
def work(folder, tmp_path) -> Path:
    """Another folder, with data of one's own and a filter that no command line could hold."""
    edit_profile(folder, retries=0)
    work = tmp_path / "work"
    work.mkdir()
    return add_own_data(work, KEPT + 10, keep={"id": [f"row-{n:06}" for n in range(5, KEPT + 5)]})


def test_a_large_section_goes_through_a_job_of_another_folder(folder, work):
    """With --directory, from a folder that is neither the clone nor the working directory."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    known = {job["JobId"] for job in jobs()}
    done = subprocess.run(
        command(
            *("-s", f"{folder}/Snakefile", "--directory", str(work), "--cores", "all"),
            *("--profile", f"{folder}/slurm", "--config", "experiment=mine.yaml", "--", TARGET),
        ),
        cwd=work.parent, env=environment(), text=True, timeout=SECONDS,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    submitted = [job for job in jobs() if job["JobId"] not in known]
    assert [job.rule for job in submitted] == ["prepare_data"]
    assert rated(work) == [f"Is it {number}?" for number in range(5, KEPT + 5)]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
