"""How scripts start and end sooner: most jobs of a small run are shorter than their imports.

Measured by benchmarks/measure_startup.py. None of it changes what a job computes.
"""

import atexit
import gc
import sys
from contextlib import ExitStack
from importlib import import_module
from types import ModuleType
from typing import Any

#: Whether this process is a script of its own, and will do nothing but its job.
_script = False


def script_starts(*, sklearn: bool = False) -> None:
    """Prepare a process that runs one script, before it imports anything heavy.

    transformers would import scikit-learn for a way of decoding that nobody uses here; a script
    that needs it says so. Imports make many objects and no garbage, so the collector looks for it
    more rarely, and not once more in all modules when the process ends.
    """
    global _script
    _script = True
    if not sklearn:
        sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
    gc.set_threshold(200_000, 10, 10)
    atexit.register(gc.freeze)


def imports_end() -> None:
    """Keep the collector out of what a script has imported, for one that asks for collections.

    vLLM does five times while it loads a model.
    """
    if _script:
        gc.freeze()


def import_models() -> None:
    """Import transformers' models for a script that runs them on one device and trains none.

    Without what only compiling, several processes and object detection need (torch._dynamo,
    torch.distributed.tensor, scipy): half of the time that it takes. Does nothing where they are
    imported already, and in processes that are not scripts: they may train afterwards.
    """
    if not _script or "transformers.modeling_utils" in sys.modules:
        return
    from unittest.mock import patch

    import torch  # noqa: F401 (before its compiler is replaced)
    import transformers.utils
    from transformers.utils import import_utils

    with ExitStack() as stack:
        for utils in (transformers.utils, import_utils):
            for check in ("is_torch_distributed_available", "is_scipy_available"):
                stack.enter_context(patch.object(utils, check, lambda: False))
        _defer_compiler()
        import transformers.generation.utils
        import transformers.modeling_layers


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    return function or _unmarked


class _Compiler(ModuleType):
    """In the place of torch._dynamo: decorators that mark functions for a compiler nobody calls.

    Whoever asks for anything else is given the real one.
    """

    disable = allow_in_graph = assume_constant_result = staticmethod(_unmarked)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # inspect asks every module for some
            raise AttributeError(name)
        _real_compiler()
        return getattr(sys.modules[DYNAMO], name)


DYNAMO = "torch._dynamo"
#: Its part that transformers imports one class of.
TRACE = f"{DYNAMO}._trace_wrapped_higher_order_op"


def _defer_compiler() -> None:
    """Have torch._dynamo imported when it is needed: most of a second of CPU."""

    def transform() -> Any:
        _real_compiler()
        return sys.modules[TRACE].TransformGetItemToIndex()

    if DYNAMO not in sys.modules:
        sys.modules[DYNAMO] = _Compiler(DYNAMO)
        sys.modules[TRACE] = ModuleType(TRACE)
        sys.modules[TRACE].TransformGetItemToIndex = transform  # type: ignore[attr-defined]


def _real_compiler() -> None:
    if isinstance(sys.modules[DYNAMO], _Compiler):
        del sys.modules[DYNAMO], sys.modules[TRACE]
    import_module(DYNAMO)
    import_module(TRACE)
