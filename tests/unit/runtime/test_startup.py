"""Scripts start without what they do not need, and nothing of any library is replaced."""

import json
import os
import subprocess
import sys

import pytest

from dpa.runtime.run_environment import CLONE

#: Prints what a script finds after it has started and, in the end, imported what loads models.
SCRIPT = """
import gc, json, sys
from dpa.runtime.startup import imports_end, script_starts

before = set(sys.modules)
script_starts(sklearn=len(sys.argv) > 1)
started = sorted(name for name in set(sys.modules) - before if sys.modules[name] is not None)
try:
    import sklearn
    importable = True
except ImportError as error:
    importable = False
threshold = gc.get_threshold()
frozen = gc.get_freeze_count()
imports_end()
print(json.dumps([started, importable, list(threshold), frozen, gc.get_freeze_count()]))
"""

#: Everything of torch and transformers that could have been replaced: modules, and functions by
#: the modules that they say they are of.
UNTOUCHED = """
import json, sys
from dpa.runtime.startup import script_starts

script_starts()
import dpa.generation.transformers_engine, dpa.reward.transformers_scorer
import torch
from torch._dynamo.utils import counters

foreign = [
    name
    for name, module in sys.modules.items()
    if name.split(".")[0] in ("torch", "transformers") and type(module).__module__ == "dpa"
]
for owner in (torch, torch.nn, torch.nn.functional, torch.nn.Module, torch.Tensor):
    foreign += [
        f"{owner.__name__}.{name}"
        for name, value in vars(owner).items()
        if str(getattr(value, "__module__", "")).startswith("dpa")
    ]
doubled = torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(1)).item()
compiler = [type(m).__name__ for m in (torch._dynamo, sys.modules["torch._dynamo"])]
print(json.dumps([foreign, bool(sys.modules.get("sklearn")), doubled, compiler]))
"""


def run(code: str, *arguments: str):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=CLONE, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_sklearn_cannot_be_imported_unless_asked_for():
    _, importable, *_ = run(SCRIPT)
    assert not importable


@pytest.mark.slow
def test_a_script_that_asks_for_sklearn_gets_it():
    _, importable, *_ = run(SCRIPT, "sklearn")
    assert importable


def test_the_collector_is_called_rarely_and_kept_out_of_imports():
    started, _, threshold, frozen, after = run(SCRIPT)
    assert started == []
    assert threshold == [200_000, 10, 10]
    assert frozen == 0 < after


def test_outside_of_scripts_nothing_is_frozen():
    code = "import gc; from dpa.runtime.startup import imports_end; imports_end()"
    assert run(f"{code}; print(gc.get_freeze_count())") == 0


@pytest.mark.slow
def test_nothing_of_torch_is_replaced():
    foreign, sklearn, doubled, compiler = run(UNTOUCHED)
    assert foreign == []
    assert not sklearn
    assert doubled == 2
    assert compiler == ["module", "module"]
