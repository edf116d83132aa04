"""Best of n at inference: n responses are sampled for an answer, and the best by v.r is given.

Nothing is trained; what DPA puts into a policy is paid for with every answer. The policy that is
sampled knows no directions: where it is asked for nothing (SFT) all directions choose among the
same responses, where it is asked for each direction's rewards (SteerLM) among their own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec.structs import asdict

from dpa.artefacts.row_counts import RowCounts
from dpa.config.steering import Pessimism
from dpa.directions import Direction, check_direction
from dpa.errors import InputError
from dpa.members import by_member, scalar_score
from dpa.methods.best_of_n import Candidate, Truncated, best_of_n, joined_samples
from dpa.records import Sample
from dpa.text.prompts import read_prompts


def choose_answers(
    scored: Sequence[Path],
    prompts: Path,
    directions: Sequence[Direction],
    samples: int,
    row_counts: RowCounts,
    truncated: Truncated,
    members: int = 1,
    pessimism: Pessimism = "none",
) -> Iterator[Sample]:
    """The answers to each prompt under each direction; `scored` is a file of each member.

    A direction's answer a is the best of its responses a * samples to (a + 1) * samples - 1, of
    those that end by themselves if any does (Truncated counts the others, once for each direction
    that chooses). Prompts without responses are counted in `row_counts`. Raises InputError naming
    the file when responses are missing, or were sampled under another direction.
    """
    position = {prompt.prompt_id: i for i, prompt in enumerate(read_prompts(prompts))}
    seen = 0
    for _, path, found in joined_samples(by_member(scored, members, "--scored"), position):
        seen += 1
        for index, direction in enumerate(directions):
            check_direction(direction, len(found[0].sample.rewards))
            mine = _candidates_of(found, index, direction, path)
            if not mine or len(mine) % samples:
                raise InputError(
                    f"{path}: {len(mine)} responses of direction {index} to prompt "
                    f"{found[0].sample.prompt_id}, which make no answers of {samples} each; delete "
                    "the file and rerun"
                )
            for first in range(0, len(mine), samples):
                group = truncated.leave_out(mine[first : first + samples])
                scores = [scalar_score(direction, c.opinions, pessimism) for c in group]
                chosen = asdict(group[best_of_n(scores)].sample)
                yield Sample(
                    **{name: chosen[name] for name in Sample.__struct_fields__}
                    | {
                        "direction_index": index,
                        "direction": direction,
                        "sample_index": first // samples,
                    }
                )
    row_counts.read += len(position)
    row_counts.dropped["no candidates"] += len(position) - seen


def _candidates_of(
    found: Sequence[Candidate], index: int, direction: Direction, path: Path
) -> list[Candidate]:
    """What a direction chooses among: its own responses, or those of no direction."""
    mine = [c for c in found if c.sample.direction_index in (-1, index)]
    for sample, _ in mine:
        if sample.direction not in (None, direction):
            raise InputError(
                f"{path}: direction {index} is {sample.direction}, expected {direction}; delete "
                "the file and rerun"
            )
    return mine
