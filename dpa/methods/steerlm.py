"""SteerLM's training conversations: annotated responses with their rewards in the system prompt."""

from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

from dpa.artefacts.jsonl import decode_lines
from dpa.artefacts.row_counts import RowCounts
from dpa.conditions import as_condition
from dpa.records import Annotation
from dpa.text.prompts import condition_system_prompt, messages


def annotated_conversations(
    annotations: Iterable[Path], wanted: Set[str], names: Sequence[str], row_counts: RowCounts
) -> Iterator[list[dict]]:
    """Responses to the wanted prompts, their rewards in the system prompt; `names` are theirs.

    Responses to other prompts are counted in `row_counts`, as rows that were read and left out;
    the training on the others counts them.
    """
    for path in annotations:
        for record in decode_lines(path, Annotation):
            if record.prompt_id in wanted:
                system = condition_system_prompt(names, as_condition(record.rewards))
                yield messages(record.prompt, system, record.response)
            else:
                row_counts.read += 1
                row_counts.drop("to other prompts", asked_for=True)
