"""Compare the artefacts of two runs, by their hashes in provenance.json.

No rule: for a change of code that should not change results. Example:

    python -m scripts.compare_runs results/before/provenance.json results/after/provenance.json
    python -m scripts.compare_runs results/miniature/provenance.json tests/fixtures/miniature

The second may be a folder of known hashes, a file per kind of processor, on which sums round
differently: a kind that it lacks fails nothing, and is printed. --renew writes this processor's
file. What shows how long jobs took (costs, table 1, the report) is left out. Ends with status 1
when an artefact differs, or is in one run only.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log

app = make_app()

#: Artefacts with wall times in them.
TIMES = ("figures/costs.", "tables/costs.", "tables/table1.", "report.html")


@app.command()
def main(
    run: Annotated[Path, typer.Argument(help="provenance.json of a run.")],
    other: Annotated[Path, typer.Argument(help="Another one, or a folder of known hashes.")],
    renew: Annotated[bool, typer.Option("--renew", help="Write the folder's file.")] = False,
) -> None:
    """Compare two runs, artefact by artefact."""
    from dpa.artefacts.outputs import replace_text
    from dpa.report.run_record import differences

    found = hashes(run)
    if other.is_dir():
        other = other / f"{processor()}.json"
        text = json.dumps({"artefacts": found}, indent=1) + "\n"
        if renew:
            replace_text(other, text)
            return
        if not other.exists():
            log.warning("%s is not there: nothing to compare with. What it would hold:", other)
            print(text)
            return
    lines = list(differences(found, hashes(other)))
    for line in lines:
        log.error("%s", line)
    if lines:
        sys.exit(1)
    log.info("%d artefacts, the same in %s", len(found), other)


def hashes(record: Path) -> dict[str, str]:
    """Artefact -> SHA-256, without `TIMES`. Raises InputError for what is not a run's record."""
    import msgspec

    from dpa.errors import InputError
    from dpa.runtime.reading import read_json_object

    try:
        found = msgspec.convert(read_json_object(record).get("artefacts"), dict[str, str | None])
    except (InputError, msgspec.ValidationError) as error:
        raise InputError(
            f"{record}: not a readable provenance.json ({error}); give one that a run has written"
        ) from None
    return {name: str(hash) for name, hash in found.items() if not name.startswith(TIMES)}


def processor() -> str:
    """The kind of processor on which sums round the same: maker, family, model, instructions."""
    import torch

    known = {"vendor_id": platform.machine(), "cpu family": "", "model": ""}
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() in known:
            known[key.strip()] = value.strip()
    return "-".join([*filter(None, known.values()), torch.backends.cpu.get_cpu_capability()])


if __name__ == "__main__":
    run_app(app)
