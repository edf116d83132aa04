"""The code closure of a script: which modules it holds, and what changes its hash."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpa.artefacts import closures
from dpa.artefacts.closures import Modules
from dpa.runtime.run_environment import CLONE

SCRIPTS = sorted(path.stem for path in (CLONE / "scripts").glob("[!_]*.py"))
OTHER_PYTHONS = sorted(
    path
    for version in ("3.12*", "3.13*")
    for path in (Path.home() / ".pyenv/versions").glob(f"{version}/bin/python")
)
#: Prints the hash of every script's closure.
HASHES = """
import json, sys
from dpa.artefacts.closures import CLONE, Modules

modules = Modules()
scripts = {name: CLONE / "scripts" / f"{name}.py" for name in sys.argv[1:]}
print(json.dumps({name: modules.hash(modules.closure(path)) for name, path in scripts.items()}))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of a script and the modules it imports, as the whole clone; and its closure's hash."""
    for path in (*(CLONE / "dpa").rglob("*.py"), CLONE / "scripts/compute_conditions.py"):
        copy = tmp_path / path.relative_to(CLONE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    monkeypatch.setattr(closures, "CLONE", tmp_path)

    def closure_hash() -> str:
        modules = Modules()
        return modules.hash(modules.closure(tmp_path / "scripts/compute_conditions.py"))

    return tmp_path, closure_hash


def test_comments_docstrings_and_layout_change_nothing(package):
    folder, closure_hash = package
    before = closure_hash()
    path = folder / "dpa/conditions.py"
    text = path.read_text()
    assert text.startswith('"""')
    path.write_text("# A comment.\n\n\n" + text.replace('"""', '"""Otherwise. ', 1))
    assert closure_hash() == before
    for module in (folder / "dpa").rglob("*.py"):  # no comments, other quotes and lines
        module.write_text(ast.unparse(ast.parse(module.read_text())))
    assert path.read_text() != text
    assert closure_hash() == before


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("dpa/conditions.py", True),
        ("dpa/seeds.py", True),  # imported by what the script imports
        ("scripts/compute_conditions.py", True),
        ("dpa/methods/rloo.py", False),
        ("dpa/runtime/log.py", False),
        ("dpa/errors.py", False),
    ],
)
def test_code_of_the_closure_changes_it(package, module, counts):
    folder, closure_hash = package
    before = closure_hash()
    with open(folder / module, "a") as file:
        file.write("\nANOTHER = 1\n")
    assert (closure_hash() != before) == counts


def test_other_values_names_and_operators_are_other_code():
    def digest(text: str) -> str:
        return closures.code_digest(ast.parse(text))

    texts = ["x = 1", "x = 1.0", "x = True", "x = '1'", "x = b'1'", "y = 1", "x += 1", "x = f'{y}'",
             "x = f'{y!r}'", "x = -1", "x = [1]", "x = (1,)", "def f(a): pass",
             "def f(*a): pass", "def f(*, a): pass"]  # fmt: skip
    assert len({digest(text) for text in texts}) == len(texts)
    assert digest("def f():\n    'Says.'\n    return 1") == digest("def f(): return 1  # one")


def test_how_a_job_runs_is_in_no_closure():
    modules = Modules()
    for script in SCRIPTS:
        names = [
            path.relative_to(CLONE).as_posix()
            for path in modules.closure(CLONE / f"scripts/{script}.py")
        ]
        assert f"scripts/{script}.py" in names
        left_out = ("dpa/runtime/", "dpa/errors.py", "dpa/serving/card.py", "dpa/__init__.py")
        assert not [name for name in names if name.startswith(left_out)], script


def test_what_a_table_does_not_compute_is_not_in_its_closure():
    found = Modules().closure(CLONE / "scripts/collect_rewardbench.py")
    assert CLONE / "dpa/evaluation/rewardbench.py" in found
    assert CLONE / "dpa/reward/packed.py" not in found


def hashes(python: str | Path) -> dict[str, str]:
    done = subprocess.run(
        [python, "-c", HASHES, *SCRIPTS],
        cwd=CLONE, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not OTHER_PYTHONS, reason="no Python 3.12 or 3.13 in ~/.pyenv/versions")
@pytest.mark.slow
def test_every_python_finds_the_same_hashes():
    ours = hashes(sys.executable)
    assert len(set(ours.values())) == len(SCRIPTS)
    for python in OTHER_PYTHONS:
        assert hashes(python) == ours, python
