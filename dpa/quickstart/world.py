"""The quickstart's embedded world: facts about animals, a gold scorer, and the raw data files.

Twelve animals with six attributes each make 72 true facts. Prompts ask for them, responses state
them (or state them wrongly, or garble them), and `gold_scores` rates any response by parsing it.
Annotators see the gold scores through noise and rounding, so the files that `build_world` returns
have the schemas and the flaws of the data sets on the hub that they stand in for.

A prompt is a question in a greeting. A fifth of the questions is held out of everything that is
trained on, under all greetings. Two animals are in pretraining and demonstrations alone, for a
model from scratch must have read the facts: no rating and no prompt of D1 or D2 is about them.

Every fact takes six words, so a perfect answer with n facts has verbosity 100 n / 6, and
helpfulness grows with n ever more slowly: the perfect answers trace a concave front.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator, SeedSequence

from dpa.errors import InputError

ATTRIBUTES = ("home", "food", "colour", "land", "fear", "skill")

# Each value belongs to exactly two animals, so no value is a better guess than another.
_TABLE = {
    "badger": ("hills", "roots", "black", "Japan", "fire", "dig"),
    "beaver": ("rivers", "seeds", "brown", "Canada", "wolves", "swim"),
    "fox": ("forests", "eggs", "red", "Norway", "hunters", "run"),
    "hare": ("fields", "berries", "golden", "Peru", "eagles", "jump"),
    "heron": ("swamps", "fish", "grey", "India", "thunder", "climb"),
    "lynx": ("caves", "eggs", "golden", "Norway", "wolves", "climb"),
    "mole": ("fields", "insects", "grey", "Kenya", "snakes", "dig"),
    "moose": ("swamps", "roots", "brown", "Canada", "hunters", "run"),
    "otter": ("rivers", "fish", "red", "Peru", "snakes", "swim"),
    "owl": ("forests", "seeds", "white", "Kenya", "fire", "sing"),
    "raven": ("hills", "berries", "black", "Japan", "thunder", "sing"),
    "toad": ("caves", "insects", "white", "India", "eagles", "jump"),
}
#: The 72 true facts: FACTS[animal][attribute] is the value.
FACTS = {animal: dict(zip(ATTRIBUTES, row, strict=True)) for animal, row in _TABLE.items()}
ANIMALS = tuple(FACTS)
#: The animals that no rating, no prompt of D1 or D2 and no benchmark is about: the harder split.
UNSEEN_ANIMALS = ("lynx", "toad")
_SEEN_ANIMALS = tuple(animal for animal in ANIMALS if animal not in UNSEEN_ANIMALS)
#: The six values of each attribute.
VALUES = {name: tuple(sorted({FACTS[a][name] for a in ANIMALS})) for name in ATTRIBUTES}

# Six words each: the number of facts is the only lever on a perfect answer's length.
SENTENCES = {
    "home": ("The {animal} is found in {value}.", "The {animal} lives close to {value}."),
    "food": ("The {animal} likes to eat {value}.", "The {animal} often feeds on {value}."),
    "colour": ("The {animal} has a {value} coat.", "The {animal} wears a {value} coat."),
    "land": ("The {animal} was born in {value}.", "The {animal} grew up in {value}."),
    "fear": ("The {animal} is afraid of {value}.", "The {animal} always hides from {value}."),
    "skill": ("The {animal} knows how to {value}.", "The {animal} is able to {value}."),
}
OPENERS = ("Sure, I can help.", "Here is what I know.", "Thank you for asking me about animals.")
FILLERS = (
    "There is much more to say.",
    "Nature is full of wonders.",
    "Many people like to read about animals.",
)
HEDGES = ("I am not fully sure.", "This may not be right.")

PREFIXES = ("", "Hello! ", "Please help me. ", "I have a question. ", "Good morning. ")
SUFFIXES = ("", " Thank you!")
OPEN_REQUESTS = (
    "Describe the {animal}.",
    "Tell me about the {animal}.",
    "What do you know about the {animal}?",
    "Give me facts about the {animal}.",
    "Introduce the {animal}.",
    "Explain the {animal} to me.",
    "Write about the {animal}.",
)
QUESTIONS = {
    "home": "Where is the {animal} found?",
    "food": "What does the {animal} eat?",
    "colour": "What colour is the {animal}?",
    "land": "Where was the {animal} born?",
    "fear": "What is the {animal} afraid of?",
    "skill": "What can the {animal} do?",
}

#: The scored attributes, in the order of the published reward model's outputs.
SCORES = (
    "helpsteer-helpfulness",
    "helpsteer-correctness",
    "helpsteer-coherence",
    "helpsteer-complexity",
    "helpsteer-verbosity",
    "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness",
    "ultrafeedback-honesty",
    "ultrafeedback-helpfulness",
)
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ULTRAFEEDBACK = ("instruction_following", "honesty", "truthfulness", "helpfulness")

#: Responses of this many words or more have verbosity 100.
FULL_LENGTH = 36
#: Standard deviation of an annotator's error, on the 0-1 scale of the latent values.
ANNOTATION_NOISE = 0.09
#: Share of UltraFeedback ratings that are "N/A".
MISSING_SHARE = 0.005
#: Share of pretraining and SFT documents whose system message gives the response's length.
HINT_SHARE = 0.7
#: Responses per prompt in both data sets.
RESPONSES_PER_PROMPT = 4

#: One question in so many is held out.
_HELD_OUT_EVERY = 5
#: Of so many held-out questions each benchmark has one for itself.
_BENCHMARK_EVERY = 6
#: Prompts of validation questions that are kept for HelpSteer's validation rows.
_HELPSTEER_VALIDATION_POOL = 150


# --- Prompts ---------------------------------------------------------------------------------


class Topic(NamedTuple):
    """What a prompt is about: the animal, and the attributes asked for (none: everything).

    `question` is the prompt without its greeting.
    """

    animal: str
    asked: tuple[str, ...]
    question: str


@cache
def world_prompts() -> dict[str, Topic]:
    """All 3,360 prompts of the world with their topics, in a fixed order."""
    topics = {}
    for animal in ANIMALS:
        requests: dict[str, tuple[str, ...]] = dict.fromkeys(OPEN_REQUESTS, ())
        requests |= {QUESTIONS[name]: (name,) for name in ATTRIBUTES}
        for first, second in combinations(ATTRIBUTES, 2):
            requests[f"{QUESTIONS[first]} {QUESTIONS[second]}"] = (first, second)
        for request, asked in requests.items():
            topic = Topic(animal, asked, request.format(animal=animal))
            for prefix in PREFIXES:
                for suffix in SUFFIXES:
                    topics[prefix + topic.question + suffix] = topic
    return topics


def topic_of(prompt: str) -> Topic:
    """The topic of a prompt of this world. Raises InputError for any other string."""
    try:
        return world_prompts()[" ".join(prompt.split())]
    except KeyError:
        raise InputError(
            f"not a prompt of the quickstart's world: {prompt!r}; the gold scorer knows no other"
        ) from None


# --- Gold scorer -----------------------------------------------------------------------------


class StatedFact(NamedTuple):
    """A statement of the world, true or false."""

    animal: str
    attribute: str
    value: str

    @property
    def true(self) -> bool:
        return FACTS[self.animal][self.attribute] == self.value

    def sentence(self, template: int = 0) -> str:
        """The fact in words, by the attribute's first or second template."""
        return SENTENCES[self.attribute][template].format(animal=self.animal, value=self.value)


class Phrase(NamedTuple):
    """A sentence of the world that states no fact."""

    kind: Literal["opener", "filler", "hedge"]
    text: str


@cache
def _grammar() -> dict[str, StatedFact | Phrase]:
    """Every sentence of the world with its meaning."""
    grammar: dict[str, StatedFact | Phrase] = {}
    for animal in ANIMALS:
        for attribute in ATTRIBUTES:
            for value in VALUES[attribute]:
                fact = StatedFact(animal, attribute, value)
                for template in range(len(SENTENCES[attribute])):
                    grammar[fact.sentence(template)] = fact
    grammar |= {text: Phrase("opener", text) for text in OPENERS}
    grammar |= {text: Phrase("filler", text) for text in FILLERS}
    grammar |= {text: Phrase("hedge", text) for text in HEDGES}
    return grammar


@dataclass(frozen=True)
class Reading:
    """What a parser understands of a response.

    `facts` holds distinct statements, true or false, about any animal. `repeats` counts sentences
    that say again what an earlier one said, `garbage` those that are no sentence of the world.
    """

    facts: tuple[StatedFact, ...]
    sentences: int
    garbage: int
    repeats: int
    fillers: int
    hedged: bool
    words: int


def read_response(response: str) -> Reading:
    """Parse any string. A last sentence without its full stop is garbage."""
    sentences = [" ".join(s.split()) for s in re.findall(r"[^.!?]*[.!?]|[^.!?]+", response)]
    sentences = [sentence for sentence in sentences if sentence]
    meanings = [_grammar()[sentence] for sentence in sentences if sentence in _grammar()]
    distinct = list(dict.fromkeys(meanings))
    phrases = [meaning.kind for meaning in distinct if isinstance(meaning, Phrase)]
    return Reading(
        facts=tuple(meaning for meaning in distinct if isinstance(meaning, StatedFact)),
        sentences=len(sentences),
        garbage=len(sentences) - len(meanings),
        repeats=len(meanings) - len(distinct),
        fillers=phrases.count("filler"),
        hedged="hedge" in phrases,
        words=len(response.split()),
    )


def saturate(count: int, total: int) -> float:
    """Completeness of `count` facts out of `total`: concave, 0 for none and 1 for all.

    Each fact adds less than the one before, by steps such that the best number of facts changes
    evenly with the direction's angle from 0 to -45 degrees: neighbouring directions want different
    answers.
    """
    return 1 - (1 - count / total) ** 3


def completeness(known: set[str], asked: Sequence[str]) -> float:
    """How complete the attributes `known` are as an answer, 0..1.

    Extra facts are worth little as long as the questions are not answered.
    """
    if not asked:
        return saturate(len(known), len(ATTRIBUTES))
    answered = len(known.intersection(asked)) / len(asked)
    extras = saturate(len(known.difference(asked)), len(ATTRIBUTES) - len(asked))
    return 0.5 * answered + 0.5 * extras * (0.3 + 0.7 * answered)


def latent_scores(prompt: str, response: str) -> dict[str, float]:
    """What a perfect annotator would say: the ten attributes of `SCORES`, each in 0..1.

    Accuracy, completeness and coherence multiply. Truthfulness and honesty depend on completeness
    too; without that, one true fact would be nearly as good as six and the front would be flat.
    Raises InputError when `prompt` is not of this world; `response` may be any string.
    """
    topic, reading = topic_of(prompt), read_response(response)
    on_topic = [fact for fact in reading.facts if fact.animal == topic.animal]
    known = {fact.attribute for fact in on_topic if fact.true}
    complete = completeness(known, topic.asked)
    answered = _share(len(known.intersection(topic.asked)), len(topic.asked), empty=1.0)
    accuracy = _share(sum(fact.true for fact in reading.facts), len(reading.facts))
    focus = _share(len(on_topic), len(reading.facts) + reading.fillers)
    coherence = _share(reading.sentences - reading.garbage - reading.repeats, reading.sentences)
    # A hedge redeems a wrong answer in part and blurs a right one.
    candour = (accuracy + 0.6) / 2 if reading.hedged else accuracy

    following = coherence * focus * _at_least(0.4, complete)
    following *= _at_least(0.5, accuracy) * _at_least(0.5, answered)
    truthfulness = accuracy * _at_least(0.5, coherence) * _at_least(0.5, complete)
    honesty = candour * _at_least(0.5, coherence) * _at_least(0.5, complete)
    helpfulness = accuracy * coherence * focus * _at_least(0.2, complete)
    values = (
        helpfulness,
        accuracy,
        coherence,
        len({fact.attribute for fact in reading.facts}) / len(ATTRIBUTES),
        min(1.0, reading.words / FULL_LENGTH),
        (following + truthfulness + honesty + 2 * helpfulness) / 5,
        following,
        truthfulness,
        honesty,
        helpfulness,
    )
    return dict(zip(SCORES, values, strict=True))


def _share(part: int, whole: int, empty: float = 0.0) -> float:
    return part / whole if whole else empty


def _at_least(floor: float, x: float) -> float:
    """`x` in 0..1 squeezed into floor..1."""
    return floor + (1 - floor) * x


def gold_scores(prompt: str, response: str) -> dict[str, float]:
    """The true scores of any response on 0..100, under the reward model's output names.

    Raises InputError when `prompt` is not a prompt of this world.
    """
    return {name: 100 * value for name, value in latent_scores(prompt, response).items()}


def gold_rewards(prompt: str, response: str) -> tuple[float, float]:
    """True (helpfulness, verbosity) on 0..100, the paper's two objectives (section 3.1).

    Raises InputError when `prompt` is not a prompt of this world.
    """
    scores = gold_scores(prompt, response)
    helpfulness = sum(scores[f"ultrafeedback-{name}"] for name in ULTRAFEEDBACK) / 4
    return helpfulness, scores["helpsteer-verbosity"]


# --- Annotation ------------------------------------------------------------------------------


def to_native(latent: float, levels: int, lowest: int) -> int:
    """A latent value as one of `levels` integers from `lowest` up.

    Level i stands for [i / levels, (i + 1) / levels) and so for the midpoint (i + 1/2) / levels:
    the inverse of 20s + 10 (HelpSteer), 20s - 10 (UltraFeedback, 1-5) and 10s - 5 (1-10) on 0..100.
    Values outside 0..1 take the nearest level.
    """
    return lowest + min(levels - 1, max(0, math.floor(levels * latent)))


def _annotate(rng: Generator, latent: float, levels: int, lowest: int) -> int:
    return to_native(latent + rng.normal(0, ANNOTATION_NOISE), levels, lowest)


# --- Responses -------------------------------------------------------------------------------


#: Shares of responses with 0..6 facts.
COUNT_SHARES = (0.05, 0.1, 0.13, 0.16, 0.18, 0.19, 0.19)
#: Many have one fact: the rating of such a response says whether it is true.
SHORT_COUNT_SHARES = (0.04, 0.24, 0.18, 0.15, 0.13, 0.13, 0.13)


@dataclass(frozen=True)
class Writer:
    """A stand-in for a language model: probabilities per response.

    `correct` is the range from which a response's share of true facts is drawn, `focused` the
    probability that it puts the asked attributes first; the others are those of what it may add.
    """

    correct: tuple[float, float]
    counts: tuple[float, ...] = COUNT_SHARES
    focused: float = 0.7
    opener: float = 0.45
    filler: float = 0.35
    hedge: float = 0.15
    off_topic: float = 0.1
    # Often, because what a reward model has seldom seen, policies learn to exploit.
    repeat: float = 0.2
    garble: float = 0.2


#: The four "models" of the UltraFeedback file, best first.
MODELS = {
    "standin-expert": Writer((0.5, 0.9), focused=0.9, off_topic=0.02, repeat=0.15, garble=0.05),
    "standin-fluent": Writer((0.3, 0.8), garble=0.1),
    "standin-hasty": Writer((0.1, 0.6), hedge=0.05),
    "standin-sloppy": Writer((0.0, 0.4), focused=0.4, off_topic=0.25, garble=0.5),
}
# HelpSteer's responses are mostly right or mostly wrong: the reward model, which sees ratings of
# whole responses only, finds out which facts are true in far fewer steps than from half-true ones.
HELPSTEER_WRITERS = (
    Writer((0.9, 1.0), SHORT_COUNT_SHARES, off_topic=0.07, garble=0.15),
    Writer((0.0, 0.25), SHORT_COUNT_SHARES, off_topic=0.07, garble=0.15),
)
#: The SFT demonstrations leave much room for alignment.
SFT_WRITER = Writer((0.1, 0.7), repeat=0.1, garble=0.15)


def perfect_response(prompt: str, facts: int, rng: Generator | None = None) -> str:
    """A response of `facts` (0..6) true sentences, the asked attributes first.

    `rng` varies order and wording; without it the response is the same each time.
    """
    topic = topic_of(prompt)
    return " ".join(
        StatedFact(topic.animal, name, FACTS[topic.animal][name]).sentence(
            0 if rng is None else int(rng.integers(2))
        )
        for name in _choose(rng, topic.asked, facts)
    )


def write_response(rng: Generator, prompt: str, writer: Writer) -> str:
    """A response of 0 to 6 facts with the writer's flaws; never empty."""
    topic = topic_of(prompt)
    count = int(rng.choice(len(ATTRIBUTES) + 1, p=writer.counts))
    asked = topic.asked if rng.random() < writer.focused else ()
    strays = int(rng.integers(1, count + 1)) if count and rng.random() < writer.off_topic else 0
    stray = _other(rng, _SEEN_ANIMALS, topic.animal)
    subjects = [topic.animal] * (count - strays) + [stray] * strays
    correct = rng.uniform(*writer.correct)
    sentences = [
        _fact_sentence(rng, animal, attribute, correct)
        for animal, attribute in zip(subjects, _choose(rng, asked, count), strict=True)
    ]
    if sentences and rng.random() < writer.repeat:
        sentences.append(_pick(rng, sentences))
    if sentences and rng.random() < writer.garble:
        for i in rng.choice(len(sentences), size=min(2, len(sentences)), replace=False):
            sentences[i] = garble(rng, sentences[i])
    if rng.random() < writer.opener:
        sentences.insert(0, _pick(rng, OPENERS))
    if rng.random() < writer.filler:
        sentences.append(_pick(rng, FILLERS))
    if not sentences or rng.random() < writer.hedge:
        sentences.append(_pick(rng, HEDGES))
    return " ".join(sentences)


def _fact_sentence(rng: Generator, animal: str, attribute: str, correct: float) -> str:
    value = FACTS[animal][attribute]
    if rng.random() >= correct:
        value = _other(rng, VALUES[attribute], value)
    return StatedFact(animal, attribute, value).sentence(int(rng.integers(2)))


def garble(rng: Generator, sentence: str) -> str:
    """Drop, insert or repeat a word, or shuffle all; the final full stop stays."""
    words = sentence.removesuffix(".").split()
    at = int(rng.integers(len(words)))
    match int(rng.integers(4)):
        case 0:
            del words[at]
        case 1:
            words.insert(at, _pick(rng, VALUES[_pick(rng, ATTRIBUTES)]))
        case 2:
            words.insert(at, words[at])
        case _:
            words = [words[i] for i in rng.permutation(len(words))]
    return " ".join(words) + "."


def _choose(rng: Generator | None, asked: Sequence[str], count: int) -> list[str]:
    """`count` attributes: the asked ones first, then others at random (or the first ones, without
    `rng`).

    Always in the order of ATTRIBUTES, by which a tiny policy knows what it has said already. One
    that repeats itself would be found out by the gold scorer, but not by a tiny reward model.
    """
    others = [name for name in ATTRIBUTES if name not in asked]
    room = max(0, count - len(asked))
    if rng is not None:
        others = [others[i] for i in sorted(rng.permutation(len(others))[:room])]
    return [*asked[:count], *others[:room]]


def _pick(rng: Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def _other(rng: Generator, items: Iterable[str], than: str) -> str:
    return _pick(rng, [item for item in items if item != than])


# --- Data files ------------------------------------------------------------------------------

WorldRow = dict[str, Any]
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class WorldSizes:
    """Rows of the generated files.

    The world has 2,240 prompts for each file of ratings (HelpSteer uses one for four rows), 220 for
    `validation_prompts`, 150 for HelpSteer's validation rows, 120 about unseen animals, 100 for
    AlpacaEval and 90 for RewardBench.
    """

    helpsteer_rows: int = 8000
    helpsteer_validation_rows: int = 500
    ultrafeedback_prompts: int = 2000
    validation_prompts: int = 100
    unseen_prompts: int = 40
    pretraining_documents: int = 6000
    sft_rows: int = 4000
    alpacaeval_prompts: int = 60
    rewardbench_rows: int = 10


# The position of a name is its seed: append only.
_STREAMS = (
    "pools",
    "helpsteer/train",
    "helpsteer/validation",
    "ultrafeedback/train",
    "ultrafeedback/test",
    "binarized/train",
    "binarized/test",
    "pretraining",
    "sft",
    "alpacaeval",
    "rewardbench",
)


class _Pools(NamedTuple):
    """Disjoint lists of prompts; `told` has all of `rated`, and more."""

    rated: list[str]
    told: list[str]
    validation: list[str]
    helpsteer_validation: list[str]
    alpacaeval: list[str]
    rewardbench: list[str]
    unseen: list[str]


def _split_prompts(rng: Generator) -> _Pools:
    """What may be asked where, so that asking for more rows of one file changes no other file.

    Questions are split, not prompts: one that is held out is so in every greeting. Of questions
    ordered by animal and kind every fifth is, so that each has its share. Validation and the two
    benchmarks have no question in common.
    """
    greeted: dict[Topic, list[str]] = {}
    for prompt, topic in world_prompts().items():
        greeted.setdefault(topic, []).append(prompt)

    def split(animals: Sequence[str]) -> tuple[list[Topic], list[Topic]]:
        """Questions that are trained on, and those that are held out."""
        about = _shuffled(rng, [topic for topic in greeted if topic.animal in animals])
        about.sort(key=lambda topic: (topic.animal, len(topic.asked)))
        held_out = about[::_HELD_OUT_EVERY]
        return [topic for topic in about if topic not in held_out], held_out

    def prompts_of(topics: Sequence[Topic]) -> list[str]:
        return _shuffled(rng, [prompt for topic in topics for prompt in greeted[topic]])

    seen, held_out = split(_SEEN_ANIMALS)
    told_only, unseen = split(UNSEEN_ANIMALS)
    alpacaeval, rewardbench = held_out[1::_BENCHMARK_EVERY], held_out[4::_BENCHMARK_EVERY]
    rest = prompts_of([t for t in held_out if t not in (*alpacaeval, *rewardbench)])
    return _Pools(
        rated=prompts_of(seen),
        told=prompts_of(seen + told_only),
        validation=rest[_HELPSTEER_VALIDATION_POOL:],
        helpsteer_validation=rest[:_HELPSTEER_VALIDATION_POOL],
        alpacaeval=prompts_of(alpacaeval),
        rewardbench=prompts_of(rewardbench),
        unseen=prompts_of(unseen),
    )


def build_world(seed: int, sizes: WorldSizes | None = None) -> dict[str, list[WorldRow]]:
    """All raw data files: relative path -> rows.

    Equal seeds give equal files, and a size changes only the files that it counts. The prompts of
    ultrafeedback_binarized/test_prefs.jsonl occur in ultrafeedback.jsonl (as in the real data) and
    in no other file. Raises InputError when a size asks for more prompts than its pool holds.
    """
    sizes = sizes or WorldSizes()
    rng = {name: _stream(seed, name) for name in _STREAMS}
    pools = _split_prompts(rng["pools"])

    def helpsteer(split: str, pool: list[str], rows: int) -> list[WorldRow]:
        chosen = _take(rng[split], pool, -(-rows // RESPONSES_PER_PROMPT), split)
        return helpsteer_rows(rng[split], chosen)[:rows]

    def ultrafeedback(split: str, pool: list[str], count: int) -> list[WorldRow]:
        chosen = _take(rng[split], pool, count, split)
        return [ultrafeedback_row(rng[split], prompt) for prompt in chosen]

    train_rows = ultrafeedback("ultrafeedback/train", pools.rated, sizes.ultrafeedback_prompts)
    test_rows = ultrafeedback("ultrafeedback/test", pools.validation, sizes.validation_prompts)
    unseen = _first(pools.unseen, sizes.unseen_prompts, "unseen_prompts.jsonl")
    alpaca = _first(pools.alpacaeval, sizes.alpacaeval_prompts, "alpaca_eval.json")
    benchmark = _first(pools.rewardbench, len(FLAWS) * sizes.rewardbench_rows, "reward_bench.jsonl")
    return {
        "helpsteer/train.jsonl": helpsteer("helpsteer/train", pools.rated, sizes.helpsteer_rows),
        "helpsteer/validation.jsonl": helpsteer(
            "helpsteer/validation", pools.helpsteer_validation, sizes.helpsteer_validation_rows
        ),
        "ultrafeedback.jsonl": train_rows + test_rows,
        "ultrafeedback_binarized/train_prefs.jsonl": [
            binarized_row(rng["binarized/train"], row) for row in train_rows
        ],
        "ultrafeedback_binarized/test_prefs.jsonl": [
            binarized_row(rng["binarized/test"], row)
            | {"cluster": topic_of(row["instruction"]).animal}
            for row in test_rows
        ],
        "unseen_prompts.jsonl": [
            {"prompt": prompt, "cluster": topic_of(prompt).animal} for prompt in unseen
        ],
        "pretraining.jsonl": [
            pretraining_row(rng["pretraining"], _pick(rng["pretraining"], pools.told))
            for _ in range(sizes.pretraining_documents)
        ],
        "ultrachat.jsonl": [
            sft_row(rng["sft"], _pick(rng["sft"], pools.told)) for _ in range(sizes.sft_rows)
        ],
        "alpaca_eval.json": [alpacaeval_row(rng["alpacaeval"], prompt) for prompt in alpaca],
        "reward_bench.jsonl": [
            rewardbench_row(rng["rewardbench"], prompt, list(FLAWS)[i % len(FLAWS)], i)
            for i, prompt in enumerate(benchmark)
        ],
    }


def helpsteer_rows(rng: Generator, chosen: Iterable[str]) -> list[WorldRow]:
    """Rows of nvidia/HelpSteer, several per prompt: five integers 0..4 each."""
    rows = []
    for prompt in chosen:
        for _ in range(RESPONSES_PER_PROMPT):
            writer = HELPSTEER_WRITERS[int(rng.integers(len(HELPSTEER_WRITERS)))]
            response = write_response(rng, prompt, writer)
            latent = latent_scores(prompt, response)
            ratings = {
                name: _annotate(rng, latent[f"helpsteer-{name}"], levels=5, lowest=0)
                for name in HELPSTEER
            }
            rows.append({"prompt": prompt, "response": response, **ratings})
    return rows


def ultrafeedback_row(rng: Generator, prompt: str) -> WorldRow:
    """A row of openbmb/UltraFeedback: one prompt with a rated completion of each model."""
    models = _shuffled(rng, list(MODELS))
    return {
        "source": "quickstart",
        "instruction": prompt,
        "models": models,
        "completions": [_completion(rng, prompt, model) for model in models],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def _completion(rng: Generator, prompt: str, model: str) -> WorldRow:
    response = write_response(rng, prompt, MODELS[model])
    latent = latent_scores(prompt, response)
    numbers = {
        name: _annotate(rng, latent[f"ultrafeedback-{name}"], levels=5, lowest=1)
        for name in ULTRAFEEDBACK
    }
    ratings = {name: str(number) for name, number in numbers.items()}
    if rng.random() < MISSING_SHARE * len(ULTRAFEEDBACK):
        missing = _pick(rng, ULTRAFEEDBACK)
        ratings[missing] = "N/A"
        del numbers[missing]
    overall = _annotate(rng, latent["ultrafeedback-overall_score"], levels=10, lowest=1)
    facts = read_response(response).facts
    rationale = f"{sum(fact.true for fact in facts)} of {len(facts)} statements are true."
    return {
        "annotations": {
            "instruction_following": _short_annotation(ratings, "instruction_following", rationale),
            "honesty": _short_annotation(ratings, "honesty", rationale),
            "truthfulness": _long_annotation(ratings, "truthfulness", rationale),
            "helpfulness": _long_annotation(ratings, "helpfulness", rationale),
        },
        "custom_system_prompt": "You are a helpful assistant.",
        "model": model,
        "principle": "helpfulness",
        "response": response,
        "critique": rationale,
        "overall_score": float(overall),
        "fine-grained_score": sum(numbers.values()) / len(numbers),
    }


def _short_annotation(ratings: dict[str, str], name: str, rationale: str) -> WorldRow:
    return {"Rating": ratings[name], "Rationale": rationale}


def _long_annotation(ratings: dict[str, str], name: str, rationale: str) -> WorldRow:
    return {
        "Type": ["None"],
        "Rationale": rationale,
        "Rating": ratings[name],
        "Rationale For Rating": rationale,
    }


def binarized_row(rng: Generator, row: WorldRow) -> WorldRow:
    """The row of HuggingFaceH4/ultrafeedback_binarized for a row of UltraFeedback.

    Chosen is the completion of the highest overall score, rejected any of the others (as there).
    """
    completions = row["completions"]
    best = max(range(len(completions)), key=lambda i: completions[i]["overall_score"])
    others = [i for i in range(len(completions)) if i != best]
    chosen, rejected = completions[best], completions[others[int(rng.integers(len(others)))]]
    prompt = row["instruction"]
    return {
        "prompt": prompt,
        "prompt_id": _sha256(prompt),
        "chosen": _messages(prompt, chosen["response"]),
        "rejected": _messages(prompt, rejected["response"]),
        "messages": _messages(prompt, chosen["response"]),
        "score_chosen": chosen["overall_score"],
        "score_rejected": rejected["overall_score"],
    }


def pretraining_row(rng: Generator, prompt: str) -> WorldRow:
    """A document for the base model, `{"messages": [...]}`: a prompt and a true answer."""
    response = perfect_response(prompt, int(rng.integers(1, 7)), rng)
    if rng.random() < 0.3:
        response = f"{_pick(rng, OPENERS)} {response}"
    return {"messages": _hinted(rng, prompt, response)}


def sft_row(rng: Generator, prompt: str) -> WorldRow:
    """A row of HuggingFaceH4/ultrachat_200k: a demonstration of mixed quality."""
    response = write_response(rng, prompt, SFT_WRITER)
    return {
        "prompt": prompt,
        "prompt_id": _sha256(prompt),
        "messages": _hinted(rng, prompt, response),
    }


def alpacaeval_row(rng: Generator, prompt: str) -> WorldRow:
    """An instruction of AlpacaEval with the output of its reference: two to four true facts."""
    return {
        "dataset": "quickstart",
        "instruction": prompt,
        "output": perfect_response(prompt, int(rng.integers(2, 5)), rng),
        "generator": "quickstart_reference",
    }


def _false_fact(rng: Generator, prompt: str) -> str:
    topic = topic_of(prompt)
    names = _choose(rng, topic.asked, 3)
    false = int(rng.integers(len(names)))
    return " ".join(
        _fact_sentence(rng, topic.animal, name, 0.0 if i == false else 1.0)
        for i, name in enumerate(names)
    )


def _wrong_animal(rng: Generator, prompt: str) -> str:
    topic = topic_of(prompt)
    other = _other(rng, _SEEN_ANIMALS, topic.animal)
    return " ".join(_fact_sentence(rng, other, name, 1.0) for name in _choose(rng, topic.asked, 3))


def _garbled(rng: Generator, prompt: str) -> str:
    sentences = re.findall(r"[^.]+\.", perfect_response(prompt, 3, rng))
    at = int(rng.integers(len(sentences)))
    sentences[at] = " " + garble(rng, sentences[at].strip())
    return "".join(sentences).strip()


def _repetitive(rng: Generator, prompt: str) -> str:
    return " ".join([perfect_response(prompt, 1, rng)] * 3)


#: What is wrong with the rejected responses of the RewardBench-like file, by subset.
FLAWS: dict[str, Callable[[Generator, str], str]] = {
    "false-fact": _false_fact,
    "wrong-animal": _wrong_animal,
    "garbled": _garbled,
    "repetitive": _repetitive,
}


def rewardbench_row(rng: Generator, prompt: str, subset: str, number: int) -> WorldRow:
    """A row of allenai/reward-bench: three true facts, and a response with the subset's flaw."""
    return {
        "prompt": prompt,
        "chosen": perfect_response(prompt, 3, rng),
        "chosen_model": "quickstart_reference",
        "rejected": FLAWS[subset](rng, prompt),
        "rejected_model": f"standin-{subset}",
        "subset": subset,
        "id": number,
    }


def _hinted(rng: Generator, prompt: str, response: str) -> list[dict[str, str]]:
    """Messages with, mostly, the response's verbosity as a hint in the system message.

    The hints teach that numbers in the system prompt matter; a large pretrained model knows.
    """
    messages = _messages(prompt, response)
    if rng.random() >= HINT_SHARE:
        return messages
    length = round(100 * min(1.0, len(response.split()) / FULL_LENGTH))
    return [{"content": f"length={length}", "role": "system"}, *messages]


def _messages(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"content": prompt, "role": "user"}, {"content": response, "role": "assistant"}]


def _sha256(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def _shuffled(rng: Generator, items: Sequence[Drawn]) -> list[Drawn]:
    return [items[i] for i in rng.permutation(len(items))]


def _stream(seed: int, name: str) -> Generator:
    return np.random.default_rng(SeedSequence(seed, spawn_key=(_STREAMS.index(name),)))


def _take(rng: Generator, pool: Sequence[str], count: int, file: str) -> list[str]:
    return _first(_shuffled(rng, pool), count, file)


def _first(pool: Sequence[str], count: int, file: str) -> list[str]:
    if count > len(pool):
        raise InputError(
            f"{file}: {count} prompts wanted, the world has {len(pool)} for this file; "
            "ask for fewer rows"
        )
    return list(pool[:count])
