"""How scripts start and end sooner: most jobs of a small run are shorter than their imports.

Measured by benchmarks/measure_startup.py. None of it changes what a job computes.
"""

import atexit
import gc
import sys

#: Whether this process is a script of its own, and will do nothing but its job.
_script = False


def script_starts(*, sklearn: bool = False) -> None:
    """Prepare a process that runs one script, before it imports anything heavy.

    transformers would import scikit-learn for a way of decoding that is not used here; a script
    that needs it says so. Imports make many objects and no garbage, so the collector looks for it
    more rarely, and not once more in all modules when the process ends.
    """
    global _script
    _script = True
    if not sklearn:
        # Python's own mark of a module that cannot be imported, as if it were not installed.
        sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
    gc.set_threshold(200_000, 10, 10)
    atexit.register(gc.freeze)


def imports_end() -> None:
    """Keep the collector out of what a script has imported, for one that asks for collections.

    vLLM does five times while it loads a model.
    """
    if _script:
        gc.freeze()
