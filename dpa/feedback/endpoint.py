"""A language model behind an HTTP endpoint as an annotator.

Several responses to a prompt are shown at a time, in an order that is drawn from the seed. Each
answer is kept when it arrives, also one that is no valid rating: a run that resumes takes the same
way through the same answers, pays for none again and writes the same bytes.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpa.config.feedback import EndpointAnnotatorConfig, PriceConfig
from dpa.data.rated import Tally
from dpa.data.scales import NATIVE_SCALES
from dpa.endpoint.answers import AnswerStore, Messages
from dpa.endpoint.keys import lacks_key, redacted
from dpa.errors import InputError
from dpa.feedback.annotators import Annotator, rating_points
from dpa.feedback.questions import describe_task, make_question, read_answer
from dpa.feedback.rubrics import Rubric, rubrics_of
from dpa.records import ToRate
from dpa.runtime.log import Progress, log
from dpa.runtime.reading import decode_json
from dpa.seeds import derive_seed

#: How often a group is asked about before its responses stay without ratings.
ATTEMPTS = 3
#: Characters of English for a token, less than judges were measured at: an estimate is no promise.
TOKEN_CHARACTERS = 4.0
#: Tokens that a chat's wrapping and our JSON's add to a question.
WRAPPING_TOKENS = 60
#: Tokens of a response's rationale with its id, and of the rating of an attribute with its name.
RATIONALE_TOKENS, RATING_TOKENS = 80, 15
#: How much longer than expected an answer may be.
SPARE = 4
#: Why a response has no rating.
INVALID, REFUSED = f"no valid rating in {ATTEMPTS} answers", "refused by the server"


class Use(NamedTuple):
    """Calls with the tokens that they ask and answer."""

    calls: int = 0
    asked: float = 0
    answered: float = 0

    def plus(self, other: "Use") -> "Use":
        return Use(
            self.calls + other.calls, self.asked + other.asked, self.answered + other.answered
        )

    def dollars(self, price: PriceConfig | None) -> float:
        """What it costs, in US dollars."""
        if price is None:
            return 0.0
        return (self.asked * price.input + self.answered * price.output) / 1e6


def expected_use(
    rubrics: dict[str, Rubric], groups: float, responses: float, text_tokens: float
) -> Use:
    """What so many groups will take, with so many responses in all and tokens of texts."""
    task = len(describe_task(rubrics)) / TOKEN_CHARACTERS + WRAPPING_TOKENS
    answered = (RATIONALE_TOKENS + RATING_TOKENS * len(rubrics)) * responses
    return Use(math.ceil(groups), task * groups + text_tokens, answered)


def too_costly(dollars: float, config: EndpointAnnotatorConfig, what: str) -> str:
    """The message where ratings cost more than they may."""
    return (
        f"feedback.annotator: {what} ${dollars:.2f}, more than feedback.annotator.max_cost allows "
        f"(${config.max_cost:.2f}); raise it, have fewer samples rated "
        "(feedback.prompts_per_iteration), or choose another annotator"
    )


def missing_key(config: EndpointAnnotatorConfig) -> str:
    """The message where a key is missing."""
    return (
        f"feedback.annotator: {config.key_variable} is not in the environment; set it to the "
        "server's key, or key_variable to null"
    )


def endpoint_annotator(
    config: EndpointAnnotatorConfig, attributes: Sequence[str], seed: int, store: Path
) -> Annotator:
    """An annotator that asks a server about the attributes, by their rubrics.

    `store` keeps answers. Raises InputError for an attribute without a rubric; and when it rates:
    before the first call when the key is missing or the estimated cost is above `max_cost`, later
    when the server fails for good or the ratings have come to cost that much.
    """
    rubrics = rubrics_of(attributes, config.rubrics)
    scales = {n: (r.low, r.high) for n, r in rubrics.items() if n not in NATIVE_SCALES}

    def rate(items: Sequence[ToRate], tally: Tally) -> list[dict[str, float]]:
        groups = [*_groups(items, config.responses_per_call)]
        with _Endpoint(config, rubrics, seed, store) as endpoint:
            endpoint.announce(groups, items)
            answers = endpoint.rate_all(groups, items)
        tally.row_counts.read += len(items)
        rated: list[dict[str, float]] = [{} for _ in items]
        for group, (found, invalid) in zip(groups, answers, strict=True):
            tally.notes["answers that were not valid"] += invalid
            if isinstance(found, str):
                tally.row_counts.drop(found, rows=len(group))
                continue
            for place, ratings in zip(group, found, strict=True):
                rated[place] = {n: rating_points(n, r, scales) for n, r in ratings.items()}
        tally.notes["tokens asked"] += round(endpoint.used.asked)
        tally.notes["tokens answered"] += round(endpoint.used.answered)
        tally.notes["US cents"] += round(100 * endpoint.used.dollars(config.price))
        return rated

    return rate


def _groups(items: Sequence[ToRate], size: int) -> Iterator[list[int]]:
    """Places of samples that are rated at a time: those of a prompt, in their order."""
    by_prompt: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        by_prompt.setdefault(item.prompt_id, []).append(place)
    for places in by_prompt.values():
        for start in range(0, len(places), size):
            yield places[start : start + size]


#: A group's ratings or the reason why it has none, and how many answers were not valid.
GroupRatings = tuple[list[dict[str, int]] | str, int]


class _Endpoint:
    """Asks about groups, several at a time, and counts what it takes."""

    def __init__(
        self, config: EndpointAnnotatorConfig, rubrics: dict[str, Rubric], seed: int, store: Path
    ) -> None:
        from dpa.endpoint.client import EndpointClient, open_transport

        self.config, self.rubrics, self.seed = config, rubrics, seed
        self.kept = AnswerStore(store, is_completion)
        self.client = EndpointClient(config.base_url, config.key_variable, open_transport())
        #: What the answers that the ratings are from have taken, in whatever run they were given.
        self.used = Use()
        self._lock = threading.Lock()
        self._warned = False

    def __enter__(self) -> "_Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def announce(self, groups: Sequence[list[int]], items: Sequence[ToRate]) -> None:
        """Say what will be asked, and stop where it may not be."""
        use, known = Use(), 0
        for group in groups:
            question = self._question([items[i] for i in group], 0, "")
            if (answer := self._kept(question)) is not None:
                known += 1
                use = use.plus(self._use_of(question, answer))
            else:
                characters = len(question[1]["content"])
                tokens = characters / TOKEN_CHARACTERS
                use = use.plus(expected_use(self.rubrics, 1, len(group), tokens))
        dollars = use.dollars(self.config.price)
        log.info(
            "%s rates %d responses in %d calls (%d were answered before): about %d tokens and %d "
            "answered, $%.2f in all",
            self.config.model, len(items), len(groups), known, use.asked, use.answered, dollars,
        )  # fmt: skip
        if known < len(groups) and lacks_key(self.config.key_variable):
            raise InputError(missing_key(self.config))
        if known < len(groups) and dollars > self.config.max_cost:
            raise InputError(too_costly(dollars, self.config, "these ratings cost about"))

    def rate_all(self, groups: Sequence[list[int]], items: Sequence[ToRate]) -> list[GroupRatings]:
        """The groups' ratings, in their order. After a failure no new question is asked."""
        import openai

        progress = Progress(len(groups), "calls")

        def rate(group: list[int]) -> GroupRatings:
            found = self._rate([items[i] for i in group])
            with self._lock:
                progress.advance(1)
            return found

        with ThreadPoolExecutor(self.config.concurrency) as pool:
            try:
                jobs = [pool.submit(rate, group) for group in groups]
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        try:
            return [job.result() for job in sorted(jobs, key=lambda job: job not in done)]
        except openai.OpenAIError as error:
            why = redacted(str(error), self.config.key_variable).replace("\n", " ")
            raise InputError(
                f"the annotator {self.config.model} failed: {why[:300]}; what it has answered is "
                f"kept in {self.kept.folder}: rerun to resume"
            ) from None

    def _rate(self, group: Sequence[ToRate]) -> GroupRatings:
        """Ask about a group until an answer is valid, each time in another order."""
        problem = ""
        for attempt in range(ATTEMPTS):
            question = self._question(group, attempt, problem)
            answer = self._ask(question)
            if answer is None:
                return REFUSED, attempt
            try:
                found = read_answer(_content(answer), self.rubrics, len(group))
            except ValueError as error:
                problem = str(error)
                continue
            ratings = dict(zip(self._order(group, attempt), found, strict=True))
            return [ratings[i] for i in range(len(group))], attempt
        return INVALID, ATTEMPTS

    def _order(self, group: Sequence[ToRate], attempt: int) -> list[int]:
        parts = [group[0].prompt_id, *(item.response_hash for item in group)]
        seed = derive_seed(self.seed, "feedback-endpoint", attempt, *parts)
        return np.random.default_rng(seed).permutation(len(group)).tolist()

    def _question(self, group: Sequence[ToRate], attempt: int, problem: str) -> Messages:
        ordered = [group[i] for i in self._order(group, attempt)]
        return make_question(self.rubrics, ordered, problem)

    def _settings(self, question: Messages) -> dict[str, Any]:
        """What a request says beside model and messages."""
        responses = self.config.responses_per_call
        expected = expected_use(self.rubrics, 1, responses, 0).answered
        ours = {
            "temperature": 0,
            "max_tokens": int(SPARE * expected),
            "response_format": {"type": "json_object"},
        }
        return {k: v for k, v in (ours | self.config.request).items() if v is not None}

    def _kept(self, question: Messages) -> dict | None:
        return self.kept.get(self.config.model, question, self._settings(question))

    def _ask(self, question: Messages) -> dict | None:
        """The answer to a question, kept or new; None where the server does not take it.

        Raises openai.OpenAIError when the server fails, InputError when it may not be asked.
        """
        answer = self._kept(question)
        if answer is None:
            with self._lock:
                spent = self.used.dollars(self.config.price)
            if self.config.price is not None and spent > self.config.max_cost:
                raise InputError(
                    too_costly(spent, self.config, "these ratings have come to cost")
                    + f"; what was answered is kept in {self.kept.folder}"
                )
            answer = self._post(question)
            if answer is None:
                return None
            if is_completion(answer):
                self.kept.put(self.config.model, question, answer, self._settings(question))
        with self._lock:
            self.used = self.used.plus(self._use_of(question, answer))
        return answer

    def _post(self, question: Messages) -> Any:
        from openai import APIStatusError

        from dpa.endpoint.client import REFUSALS

        try:
            response = self.client.chat.completions.with_raw_response.create(
                model=self.config.model,
                messages=question,  # type: ignore[arg-type]
                extra_body=self._settings(question),
            )
            answer = decode_json(response.http_response.content, "no chat completion")
            if not is_completion(answer):
                self._warn(f"no chat completion: {answer!r:.200}")
            return answer
        except InputError as error:
            self._warn(str(error))
            return {}
        except APIStatusError as error:
            if error.status_code not in REFUSALS:
                raise
            self._warn(str(error))
            return None

    def _warn(self, why: str) -> None:
        """Say once what a server answers that gives no ratings."""
        with self._lock:
            if not self._warned:
                why = redacted(why, self.config.key_variable)[:300]
                log.warning("%s says: %s; others are only counted", self.config.model, why)
            self._warned = True

    def _use_of(self, question: Messages, answer: dict) -> Use:
        """What an answer has taken, as its server says, or by its length."""
        if not is_completion(answer):
            return Use()
        usage = answer.get("usage") or {}
        texts = sum(len(m["content"]) for m in question), len(_content(answer))
        given = usage.get("prompt_tokens"), usage.get("completion_tokens")
        asked, answered = (
            tokens if type(tokens) is int and tokens >= 0 else length / TOKEN_CHARACTERS
            for tokens, length in zip(given, texts, strict=True)
        )
        return Use(1, asked, answered)


def is_completion(response: Any) -> bool:
    """Whether a response is a chat completion, whatever it says."""
    try:
        message, usage = response["choices"][0]["message"], response.get("usage")
    except (KeyError, IndexError, TypeError, AttributeError):
        return False
    if not isinstance(message, dict) or not isinstance(usage, dict | None):
        return False
    return isinstance(message.get("content"), str | None)


def _content(answer: dict) -> str:
    """What a completion says: nothing, where it is none or only a refusal."""
    return (answer["choices"][0]["message"].get("content") or "") if is_completion(answer) else ""
