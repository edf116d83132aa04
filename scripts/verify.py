"""Check every artefact of an experiment against its sidecar: one line for each problem.

Rule: verify. Example:

    python -m scripts.verify --results results/quickstart

Hashes, numbers of records, schemas of records, and whether inputs are those that artefacts were
made from. Fails when there is a problem. Which artefacts were made by other code than the present
one is said, too: that is none.
"""

from itertools import chain

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import Progress, visible
from dpa.runtime.options import ResultsOption

app = make_app()


@app.command()
def main(
    results: ResultsOption,
) -> None:
    """Check every artefact of an experiment against its sidecar."""
    from dpa.errors import InputError
    from dpa.report.run_record import count_problems
    from dpa.report.verify import artefact_problems, artefacts_of, made_by_other_code

    total = sum(1 for _ in artefacts_of(results)) if results.is_dir() else 0
    if not total:
        raise InputError(f"{results}: no artefacts; run the experiment first")
    progress = Progress(total, "artefacts")
    found = 0
    problems = chain(
        artefact_problems(results, lambda: progress.advance(1)), count_problems(results)
    )
    for problem in problems:
        print(visible(str(problem)), flush=True)
        found += 1
    if others := made_by_other_code(results):
        listed = "\n".join(f"  {artefact}" for artefact in others)
        said = f"{len(others)} of {total} artefacts were made by other code than the present"
        print(visible(f"{said}:\n{listed}"), flush=True)
    if found:
        raise InputError(f"{results}: {found} problems in {total} artefacts; each has a line above")
    print(f"all {total} artefacts are as their sidecars say")


if __name__ == "__main__":
    run_app(app)
