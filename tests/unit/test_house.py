"""The rules of the house that a program can check (docs/architecture.md)."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from dpa.runtime.run_environment import CLONE


def test_packages_have_empty_init_files():
    for folder in ("dpa", "scripts", "tests"):
        for path in (CLONE / folder).rglob("__init__.py"):
            if path != CLONE / "dpa/__init__.py":
                assert path.read_bytes() == b"", path
    docstring, version = ast.parse((CLONE / "dpa/__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert ast.unparse(version).startswith("__version__ = ")


def defined(tree: ast.Module) -> set[str]:
    """The public classes, functions and names that are assigned at a module's top level."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                found = (part for target in targets for part in ast.walk(target))
                names.update(part.id for part in found if isinstance(part, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_is_defined_twice():
    places = defaultdict(list)
    for path in sorted((CLONE / "dpa").rglob("*.py")):
        for name in defined(ast.parse(path.read_text(encoding="utf-8"))):
            places[name].append(path.relative_to(CLONE).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_imports_go_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=CLONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readmes_first_screen_says_what_has_not_run_and_how_to_start():
    """Before the first diagram or picture: a laptop, a GPU and a cluster have three lines each."""
    first = re.split(r"```|!\[", (CLONE / "README.md").read_text(encoding="utf-8"))[0]
    assert "Nothing has been run on a GPU" in " ".join(first.split())
    for who in ("a laptop", "one GPU", "a cluster"):
        [row] = re.findall(rf"^\| {who} \| (.*) \|$", first, re.M)
        lines = row.split("<br>")
        commands = [found[1] for line in lines if (found := re.match(r"`([^`]+)`", line))]
        assert len(lines) == len(commands) == 3, who
        for named in re.findall(r"[\w/-]+\.(?:lock|yaml)", row):
            assert (CLONE / named).is_file(), named
        for experiment in re.findall(r"experiment[= ]([\w-]+)", row):
            assert (CLONE / f"experiments/{experiment}.yaml").is_file(), experiment
