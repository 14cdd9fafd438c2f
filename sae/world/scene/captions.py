"""A scene -> true sentences: full captions, captions of one attribute, zero-shot templates."""

from __future__ import annotations

from numpy.random import Generator

from sae.world.scene.concepts import BY_NAME
from sae.world.scene.random import pick
from sae.world.scene.scene import COUNT_NAMES, Placed, Scene

TEMPLATES = ("a sketch of {}", "a photo of {}", "{}")
"""How a phrase is put to the model for zero-shot classification."""
MOST_WORDS = 14
"""A longer caption drops facts. With two nouns of three tokens each that makes 18 tokens, and with
start and end the 20 that the small tokenizer's context holds."""
_TWO_TOKENS = frozenset({"tilted", "checkered", "dashed"})

_PLURALS = {
    "leaf": "leaves",
    "fish": "fish",
    "butterfly": "butterflies",
    "cross": "crosses",
    "cactus": "cactuses",
    "snowman": "snowmen",
    "rings": "sets of rings",
    "dots": "groups of dots",
    "glasses": "pairs of glasses",
}
_SIZE_WORDS = {"small": ("small", "tiny", "little"), "large": ("large", "big", "huge")}
_OPENINGS = {
    "sketch": ("a sketch of", "a drawing of", "a line drawing of"),
    "photo": ("a photo of", "a photograph of", "a photo showing"),
}
_SYNONYM_SHARE = 0.1
_OPENING_SHARE = 0.85

Fact = tuple[str, str]
"""What a caption may mention: (kind, object's name), or (kind, "") for the whole scene."""


def with_article(noun: str) -> str:
    """ "an apple", "a cup"; a plural noun stays bare."""
    head = noun.split(" of ")[0]
    if head.endswith("s") and not head.endswith(("ss", "us")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(name: str) -> str:
    """The object's name for two and more: "leaves", "sets of rings"."""
    return _PLURALS.get(name, name + "s")


def caption(scene: Scene, rng: Generator, mention: float = 0.75) -> str:
    """A sentence that names the objects and each other fact with probability `mention`."""
    facts = [fact for fact in _facts(scene) if rng.random() < mention]
    rng.shuffle(facts)
    opening = pick(rng, _OPENINGS[scene.domain]) if rng.random() < _OPENING_SHARE else ""
    nouns = {name: _noun(name, rng) for name in scene.names}
    size_words = {size: pick(rng, words) for size, words in _SIZE_WORDS.items()}
    joint = scene.relation if rng.random() < 0.5 and scene.relation else "and"
    while True:
        body = _sentence(scene, frozenset(facts), nouns, size_words, joint)
        sentence = f"{opening} {body}".strip()
        if not facts or _length(sentence) <= MOST_WORDS:
            return sentence
        facts.pop()


def one_attribute_caption(scene: Scene, rng: Generator) -> str:
    """A few words that name one true attribute; often the bare phrase of the table of concepts."""
    kinds = _sayings(scene)
    return pick(rng, pick(rng, kinds))


def _length(sentence: str) -> int:
    words = sentence.split()
    return len(words) + sum(word in _TWO_TOKENS for word in words)


def _facts(scene: Scene) -> list[Fact]:
    """All that can be mentioned besides the objects themselves."""
    whole = [
        ("stroke", scene.stroke != "solid"),
        ("width", scene.width != "medium"),
        ("background", scene.background != "blank"),
    ]
    facts = [(kind, "") for kind, holds in whole if holds]
    for placed in _different(scene):
        turned = scene.orientation_of(placed) != "upright"
        facts += [("orientation", placed.name)] if turned else []
        facts += [("pattern", placed.name)] if scene.pattern_of(placed) else []
        facts += [("filled", placed.name)] if scene.filled else []
        facts += [("colour", placed.name)] if placed.colour else []
        facts += [("size", placed.name)] if placed.size != "medium" else []
        facts += [("position", placed.name)] if placed.position else []
    return facts


def _different(scene: Scene) -> list[Placed]:
    """The first of each kind of object."""
    return list({placed.name: placed for placed in reversed(scene.objects)}.values())[::-1]


def _noun(name: str, rng: Generator) -> str:
    return BY_NAME[name].synonyms[0] if rng.random() < _SYNONYM_SHARE else name


def _sentence(
    scene: Scene,
    facts: frozenset[Fact],
    nouns: dict[str, str],
    size_words: dict[str, str],
    joint: str,
) -> str:
    described = [
        _described(scene, placed, facts, nouns[placed.name], size_words)
        for placed in _different(scene)
    ]
    words = [f" {joint} ".join(described)]
    if ("stroke", "") in facts:
        words.append(f"in {BY_NAME[scene.stroke].phrase}")
    if ("width", "") in facts:
        words.append(f"in {BY_NAME[scene.width].phrase}")
    if ("background", "") in facts:
        phrase = BY_NAME[scene.background].phrase
        words.append(f"on {phrase}" if scene.background == "plain" else phrase)
    return " ".join(words)


def _described(
    scene: Scene, placed: Placed, facts: frozenset[Fact], noun: str, size_words: dict[str, str]
) -> str:
    """One kind of object with its adjectives and its position: "a small red cup on the left"."""
    adjectives = [size_words[placed.size]] if ("size", placed.name) in facts else []
    for kind, adjective in (
        ("orientation", scene.orientation_of(placed)),
        ("pattern", scene.pattern_of(placed)),
        ("filled", "filled"),
        ("colour", placed.colour),
    ):
        adjectives += [adjective] if (kind, placed.name) in facts else []
    count = sum(other.name == placed.name for other in scene.objects)
    if count > 1:
        group = " ".join([COUNT_NAMES[count], *adjectives, plural(placed.name)])
    else:
        group = with_article(" ".join([*adjectives, noun]))
    if ("position", placed.name) not in facts:
        return group
    return f"{group} {BY_NAME[placed.position].phrase}"


def _sayings(scene: Scene) -> list[list[str]]:
    """For every true attribute the ways to say it; objects count twice, as in the table."""
    sayings: list[list[str]] = []
    for placed in _different(scene):
        sayings += 2 * [_object_sayings(scene, placed)]
        if placed.size != "medium":
            phrase = BY_NAME[placed.size].phrase
            sayings.append([phrase, phrase, *(f"{w} object" for w in _SIZE_WORDS[placed.size])])
        if placed.position:
            phrase = BY_NAME[placed.position].phrase
            sayings.append([phrase, phrase, f"something {phrase}"])
        if placed.colour:
            sayings.append([placed.colour, f"a {placed.colour} object"])
        sayings += [_attribute_sayings(own) for own in (placed.pattern, placed.orientation) if own]
    sayings += [_attribute_sayings(name) for name in _of_the_whole(scene)]
    openings = [opening.rsplit(" ", 1)[0] for opening in _OPENINGS[scene.domain]]
    return [*sayings, [BY_NAME[scene.domain].phrase, *openings]]


def _object_sayings(scene: Scene, placed: Placed) -> list[str]:
    phrase = BY_NAME[placed.name].phrase
    sayings = [phrase, phrase, f"a {scene.domain} of {phrase}"]
    sayings += [with_article(synonym) for synonym in BY_NAME[placed.name].synonyms[:1]]
    count = sum(other.name == placed.name for other in scene.objects)
    return sayings if count == 1 else [*sayings, plural(placed.name), plural(placed.name)]


def _of_the_whole(scene: Scene) -> list[str]:
    """The concepts of the whole scene, the domain apart."""
    count = COUNT_NAMES[len(scene.objects)]
    names = [count, "pair" if len(scene.names) == 2 else "", scene.orientation, scene.pattern]
    names += [scene.stroke, scene.width, "filled" if scene.filled else "", scene.background]
    return [name for name in names if name in BY_NAME]


def _attribute_sayings(name: str) -> list[str]:
    concept = BY_NAME[name]
    sayings = [concept.phrase, concept.phrase]
    if concept.kind in ("pattern", "orientation"):
        sayings.append(f"{with_article(name)} object")
    if name in ("dashed", "dotted", "thick", "thin"):
        sayings += [name, f"a {name} drawing"]
    if name == "filled":
        sayings += ["a filled object", "a filled shape"]
    return sayings
