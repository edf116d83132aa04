"""Command lines: sections, models, how a policy is steered; adapters, jobs and hooks."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from snakemake.io import apply_wildcards

from dpa.config.base import ModelConfig
from dpa.config.load import load_config
from dpa.config.trainer import ScheduleConfig
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import read_section
from dpa.workflow import flags, hooks
from dpa.workflow.adapters import Adapters
from dpa.workflow.jobs import Jobs
from dpa.workflow.layout import Layout
from dpa.workflow.stamps import Stamps

COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """In a working directory without stamps, and without another lock file."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def comparison():
    return Layout(load_config({"experiment": "quickstart-comparison"}))


# --- Flags -----------------------------------------------------------------------------------


def test_a_short_section_is_json(comparison):
    schedule = comparison.config.sft.schedule
    text = flags.section(schedule)
    assert json.loads(text) == schedule.model_dump(mode="json")
    assert read_section(ScheduleConfig, text, "schedule") == schedule


def test_a_longer_one_is_a_file_with_the_same_content(tmp_path):
    def text(length: int) -> str:
        return "x" * (length - 2)  # and two quotes

    value = text(flags.LONGEST_ARGUMENT)
    assert flags.section(value) == json.dumps(value)
    value = text(flags.LONGEST_ARGUMENT + 1)
    argument = flags.section(value)
    assert argument.startswith("@results/.stamps/sections/")
    assert json.loads((tmp_path / argument[1:]).read_text()) == value
    # Named by its content: the same command for the same, another for another.
    assert flags.section(value) == argument != flags.section(value.replace("x", "y", 1))
    directions = [[1.0, 0.0]] * flags.LONGEST_ARGUMENT
    from pydantic import TypeAdapter

    found = read_section(TypeAdapter(list), flags.section(directions), "grid")
    assert found == directions


def test_models_and_repeated_flags():
    given = ModelConfig(path="org/name", revision=COMMIT)
    assert flags.model("--policy", given, "made") == ["--policy", f"org/name@{COMMIT}"]
    here = ModelConfig(path="models/mine", revision=None)
    assert flags.model("--policy", here, "made") == ["--policy", "models/mine"]
    none = ModelConfig(path=None, revision=None)
    assert flags.model("--policy", none, "made") == ["--policy", "made"]
    assert flags.repeat("--seed", [1, 2]) == ["--seed", "1", "--seed", "2"]
    inputs = {"prompt_rewards": ["a", "b"]}
    named = flags.input_flags("prompt_rewards")(None, inputs)
    assert named == ["--prompt-rewards", "a", "--prompt-rewards", "b"]
    assert flags.input_flags("prompt_rewards", "--x")(None, inputs) == ["--x", "a", "--x", "b"]


def test_how_policies_are_steered(comparison):
    def steering(policy):
        return flags.steering(comparison, "run", policy, 3)

    arc = json.dumps({"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0})
    assert steering("dpa-2") == [
        "--policy", "run/dpa/iter2/policy", "--directions", arc, "--grid", "3"
    ]  # fmt: skip
    assert steering("dpa-0") == [
        "--policy", "run/dpa/iter0/policy", "--conditions", "run/steerlm/conditions.json",
        "--grid", "3", "--curve-points", "5",
    ]  # fmt: skip
    assert steering("sft") == ["--policy", "run/sft/policy"]
    given = Layout(load_config({"dpo": {"path": "org/dpo", "revision": COMMIT}}))
    assert flags.steering(given, "run", "dpo", 3) == ["--policy", f"org/dpo@{COMMIT}"]


def test_what_iterations_sample(comparison):
    assert flags.sampled_policy(comparison, "run", "rsf/100_0", 1) == ["--policy", "run/sft/policy"]
    assert flags.conditions(comparison, "run", "dpa", 2) == []
    assert flags.conditions(comparison, "run", "dpa", 1)[:2] == [
        "--conditions", "run/steerlm/conditions.json"
    ]  # fmt: skip
    given = Layout(load_config({"sft": {"path": "org/sft", "revision": COMMIT}}))
    assert flags.sampled_policy(given, "run", "rsf/100_0", 1) == ["--policy", f"org/sft@{COMMIT}"]


# --- Adapters --------------------------------------------------------------------------------


def test_adapters_are_functions_of_wildcards(comparison):
    adapters = Adapters(comparison, Stamps())
    turn = SimpleNamespace(experiment="quickstart-comparison", loop="dpa", iteration="1")
    run = "results/quickstart-comparison"
    assert adapters.prompt_half(turn) == f"{run}/data/prompts/d1.jsonl"
    assert adapters.sampled_policy(turn) == f"{run}/dpa/iter0/policy"
    assert adapters.iteration_conditions(turn) == f"{run}/steerlm/conditions.json"
    assert adapters.shared_flag(turn) == ["--shared"]
    distinct = Adapters(Layout(load_config({"dpa": {"distinct_answers": True}})), Stamps())
    second = SimpleNamespace(**vars(turn) | {"iteration": "2"})
    assert (distinct.distinct_flag(turn), distinct.distinct_flag(second)) == (["--distinct"], [])
    rsf = SimpleNamespace(**vars(turn) | {"loop": "rsf/100_0"})
    own = [f"{run}/rsf/100_0/iter1/scored/{i}.jsonl" for i in (0, 1)]
    assert (adapters.candidates(rsf), adapters.shared_flag(rsf)) == (own, [])
    first = Layout(load_config({"methods": ["dpa", "rsf"], "rsf": {"first_candidates": "dpa"}}))
    pool = Adapters(first, Stamps())
    assert pool.candidates(rsf) == [f"{run}/dpa/iter1/scored/{i}.jsonl" for i in (0, 1)]
    assert (pool.shared_flag(rsf), pool.distinct_flag(rsf)) == (["--shared"], ["--distinct"])
    assert adapters.base_seed(turn) == 0
    assert json.loads(adapters.loop_schedule(turn)) == comparison.config.dpa.schedule.model_dump()
    later = SimpleNamespace(**vars(turn) | {"iteration": "2"})
    assert adapters.prompt_half(later) == f"{run}/data/prompts/d2.jsonl"
    assert (adapters.iteration_conditions(later), adapters.shared_flag(later)) == ([], [])
    evaluated = SimpleNamespace(experiment=turn.experiment, policy="dpa-3")
    assert adapters.evaluated_policy(evaluated) == f"{run}/dpa/iter3/policy"
    assert adapters.evaluated_conditions(evaluated) == []
    assert json.loads(adapters.sampling(0.5))["temperature"] == 0.5


def test_a_users_own_files_are_inputs_by_their_stamps(comparison, tmp_path):
    (tmp_path / "mine.jsonl").write_text("{}\n")
    adapters = Adapters(comparison, Stamps())
    made = "results/quickstart-comparison/data/ratings.jsonl"
    stamped, other = adapters.files("mine.jsonl", None, made)
    assert stamped.startswith("results/.stamps/inputs/mine.jsonl-")
    assert other == made


def test_braces_of_paths_are_characters(comparison, tmp_path):
    """But for {experiment}, which is filled in."""
    path = '{x} {{y}} "{policy}" {experiment} {iteration,[0-9]+}.jsonl'
    text = flags.section({"path": path, "n": {"a": [{}]}})
    assert json.loads(text) == {"path": path, "n": {"a": [{}]}}
    filled = apply_wildcards(text, {"experiment": "mine"})
    assert json.loads(filled)["path"] == path.replace("{experiment}", "mine")
    own = "{x}.jsonl"
    (tmp_path / own).write_text("{}\n")
    adapters = Adapters(comparison, Stamps())
    [stamped] = adapters.files(own)
    assert "{" not in stamped
    with pytest.raises(InputError, match=r"^\{y\}\.jsonl: no such file"):
        adapters.files("{y}.jsonl")


# --- Jobs ------------------------------------------------------------------------------------


def jobs(site=(), **compute):
    """Jobs of an experiment, and of a site with such --default-resources."""
    from snakemake.resources import Resources

    return Jobs(
        load_config({"compute": compute}),
        Resources.parser_factory(allow_expressions=True)(list(site)),
    )


def asked_for(resources, attempt=1):
    """What Snakemake makes of a rule's resources."""
    from snakemake.resources import Resources

    given = {"input": [], "attempt": attempt, "rulename": "", "async_run": None, "threads": 1}
    found = {
        name: resource.evaluate(None, **given).value
        for name, resource in Resources.from_mapping(resources).items()
    }
    return {name: value for name, value in found.items() if value is not None}


def test_memory_grows_with_every_attempt_up_to_a_nodes():
    cpu, gpu = jobs(gpu=False), jobs(gpu=True, node_memory_gb=80)
    assert [cpu.memory(4000, 64000)(None, n) for n in (1, 2, 3)] == [4000, 6000, 8000]
    assert [gpu.memory(4000, 64000)(None, n) for n in (1, 2, 3)] == [64000, 80000, 80000]
    assert gpu.memory(4000)(None, 1) == 4000
    eight = jobs(gpu=True, training_processes=8, node_memory_gb=450)
    assert asked_for(eight.training(8000))["mem_mb"] == 450_000


@pytest.mark.parametrize("processes", [1, 8])
def test_a_job_on_one_node_says_so(processes):
    """Or its GPUs could be on several, and no step of the job could start with all of them."""
    gpu = jobs(gpu=True, training_processes=processes)
    for found, gpus in ((gpu.on_one_gpu(1, 2), 1), (gpu.training(1), processes)):
        assert (found["gpu"], found["nodes"], "tasks" in found) == (gpus, 1, False)
    assert jobs(gpu=False).on_one_gpu(1, 2)["gpu"] == 0


def test_jobs_without_a_gpu_have_a_partition_of_their_own():
    site = ["slurm_partition=big", "cpu_partition=small", "constraint='a100|h100'"]
    on_gpu = jobs(site, gpu=True)
    own = {"slurm_partition": "small", "constraint": None}
    assert asked_for(on_gpu.on_cpu(10)) == {"slurm_partition": "small", "mem_mb": 10}
    assert on_gpu.on_cpu(10)["constraint"] is None  # over the site's
    assert not own.keys() & on_gpu.on_one_gpu(1, 2).keys()
    assert not own.keys() & on_gpu.training(1).keys()
    on_cpu = jobs(site, gpu=False)
    for resources in (on_cpu.on_one_gpu(1, 2), on_cpu.training(1)):
        assert asked_for(resources)["slurm_partition"] == "small"
    assert not own.keys() & jobs(site[:1], gpu=True).on_cpu(10).keys()


def test_slurm_ends_a_training_with_time_to_save_whatever_else_a_site_says():
    assert asked_for(jobs(gpu=True).training(1))["slurm_extra"] == "--signal=TERM@900"
    site = jobs(["slurm_extra='--mail-type=FAIL --exclusive'"], gpu=True)
    assert asked_for(site.training(1))["slurm_extra"] == (
        "--signal=TERM@900 --mail-type=FAIL --exclusive"
    )
    assert "slurm_extra" not in site.on_one_gpu(1, 2)


def test_what_starts_a_training():
    alone = jobs(gpu=False, training_processes=1, training_nodes=1)
    assert alone.launcher(2) == "env OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 python"
    assert jobs(gpu=True, training_processes=1, training_nodes=1).launcher() == "python"
    several = jobs(gpu=True, training_processes=8, training_nodes=1)
    # Its own patience with processes that have got a SIGTERM is 30 seconds.
    started = "env TORCH_ELASTIC_SHUTDOWN_TIMEOUT=900 accelerate launch --multi_gpu --num_machines "
    held = "python -m scripts.hold_gpus --count 8"
    assert several.launcher().startswith(f"{held} {started}1 ")
    assert "hold_gpus" not in jobs(gpu=False, training_processes=8, training_nodes=1).launcher()
    nodes = jobs(gpu=True, training_processes=8, training_nodes=2, cpus_per_gpu=6).training(1000)
    assert (nodes["gpu"], nodes["nodes"], nodes["tasks"], nodes["mpi"]) == (16, 2, 2, "srun")
    assert asked_for(nodes)["slurm_extra"] == "--signal=TERM@900 --gpus-per-node=8"
    assert nodes["launcher"].startswith("srun ")
    # A task of srun has one CPU unless it says otherwise.
    assert f" --cpus-per-task=48 --gpus-per-node=8 {started}2 " in nodes["launcher"]
    assert "--num_processes 16" in nodes["launcher"]


# --- Hooks -----------------------------------------------------------------------------------


def test_what_is_not_locked_is_asked_for_by_lock_revisions_own_flags():
    from scripts.lock_revisions import app

    unlocked = {
        "sft": {"path": "org/policy", "revision": "locked"},
        "data": {"sft": [{"path": "org/data", "revision": "locked", "split": "train"}]},
    }
    layout = Layout(load_config(unlocked))
    found = hooks.unlocked_flags(layout)
    assert sorted(zip(found[::2], found[1::2], strict=True)) == [
        ("--hub-dataset", "org/data"), ("--hub-model", "org/policy")
    ]  # fmt: skip
    known = {option for part in typer.main.get_command(app).params for option in part.opts}
    assert set(found[::2]) < known
    message = hooks.floating_message(layout, "mine")
    assert message is not None
    assert "lock_revisions --config experiment=mine" in message
    fixed = Layout(load_config({"sft": {"path": "org/policy", "revision": COMMIT}}))
    assert hooks.unlocked_flags(fixed) == []
    assert hooks.floating_message(fixed, "mine") is None


def test_what_a_run_says(comparison, tmp_path):
    assert hooks.start_message(comparison) == (
        "dpa: experiment quickstart-comparison, seed 0, outputs in results/quickstart-comparison/"
    )
    assert hooks.success_message(comparison) == ""  # nothing is there
    figure = tmp_path / comparison.results / "figures/figure4.png"
    figure.parent.mkdir(parents=True)
    figure.touch()
    assert f"{comparison.results}/dpa/iter4/policy --direction " in hooks.success_message(
        comparison
    )


# --- All of them -----------------------------------------------------------------------------


def test_nothing_here_imports_snakemake():
    names = [
        f"dpa.workflow.{module.name}"
        for module in pkgutil.iter_modules([str(CLONE / "dpa/workflow")])
    ]
    assert len(names) == 6
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        "print(*sorted({'snakemake', 'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CLONE, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr


def test_what_a_stopped_rerun_left_is_named(tmp_path, monkeypatch):
    """What Snakemake takes for finished although what it was made from is gone."""
    monkeypatch.chdir(tmp_path)
    layout = Layout(load_config({"experiment": "quickstart"}))
    run = Path(layout.results)

    def made(name: str, *inputs: str) -> Path:
        artefact = run / name
        artefact.parent.mkdir(parents=True, exist_ok=True)
        artefact.write_text("x")
        facts = {"inputs": {str(run / i): "0" * 64 for i in inputs}}
        Path(f"{artefact}.meta.json").write_text(json.dumps(facts))
        return artefact

    assert hooks.stopped_rerun_message(layout) is None
    scored = made("dpa/iter4/scored/0.jsonl")
    selected = made("dpa/iter4/selected.jsonl", "dpa/iter4/scored/0.jsonl")
    policy = made("dpa/iter4/policy", "dpa/iter4/selected.jsonl", "sft/policy")
    assert hooks.stopped_rerun_message(layout) is None
    policy.unlink()  # nothing was made from it
    assert hooks.stopped_rerun_message(layout) is None
    made("dpa/iter4/policy", "dpa/iter4/selected.jsonl")
    selected.unlink()
    message = hooks.stopped_rerun_message(layout)
    assert message.startswith(f"dpa: {selected} is not there, but its sidecar is, and {policy}, ")
    assert message.endswith(f"--forcerun {selected}")
    scored.unlink()  # it is made for the selection
    assert hooks.stopped_rerun_message(layout).endswith(f"--forcerun {selected}")
    Path(f"{selected}.meta.json").unlink()  # somebody has cleaned up
    assert hooks.stopped_rerun_message(layout) is None
