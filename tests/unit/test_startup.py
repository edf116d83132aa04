"""Scripts that only run models import half of transformers, and compute the same."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from dpa.config.load import ROOT

#: Prints logits of a policy, and what is imported, before and after somebody needs the compiler.
JOB = """
import json, sys
from dpa.runtime.startup import import_models, script_starts

script_starts()
import_models()
import dpa.generation.transformers_engine, dpa.reward.transformers_scorer
import torch
from transformers import AutoModelForCausalLM

TRACE = "_trace_wrapped_higher_order_op"
HEAVY = ("scipy", "sklearn", "torch.distributed.tensor", "transformers.trainer")
with torch.no_grad():
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    logits = model(torch.arange(4, 12).reshape(1, 8)).logits[0, -1, :5].tolist()
found = [name for name in HEAVY if sys.modules.get(name)]
found += [name for name in sys.modules if name.startswith("torch._dynamo.") and name[14:] != TRACE]
from transformers.masking_utils import TransformGetItemToIndex
with TransformGetItemToIndex():
    pass
from torch._dynamo.utils import counters
doubled = torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(1)).item()
compiler = [type(m).__name__ for m in (torch._dynamo, sys.modules["torch._dynamo"])]
print(json.dumps([logits, found, doubled, compiler]))
"""


def run(policy):
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(policy)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_models_leaves_out_what_is_not_used(tiny_policy):
    logits, found, doubled, compiler = run(tiny_policy)
    assert found == []
    # On demand the compiler is the real one.
    assert doubled == 2
    assert compiler == ["module", "module"]
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(tiny_policy)
        assert logits == pytest.approx(
            model(torch.arange(4, 12).reshape(1, 8)).logits[0, -1, :5].tolist(), abs=1e-6
        )
