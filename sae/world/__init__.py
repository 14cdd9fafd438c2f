"""The built-in world: drawn sketches and photos of which everything is known."""

from sae.world.drawing.draw import Drawing, draw
from sae.world.scene.captions import TEMPLATES, caption, one_attribute_caption
from sae.world.scene.concepts import (
    BY_NAME,
    CONCEPTS,
    CONJUNCTIONS,
    OBJECTS,
    PLANTED,
    TIERS,
    Concept,
    Tier,
    concept_named,
    names_same_concept,
)
from sae.world.scene.hard import sample_hard
from sae.world.scene.scene import Placed, Scene, concepts_of, conjunctions_of, sample
from sae.world.write import WorldInfo, write_world

__all__ = [
    "BY_NAME",
    "CONCEPTS",
    "CONJUNCTIONS",
    "OBJECTS",
    "PLANTED",
    "TEMPLATES",
    "TIERS",
    "Concept",
    "Drawing",
    "Placed",
    "Scene",
    "Tier",
    "WorldInfo",
    "caption",
    "concept_named",
    "concepts_of",
    "conjunctions_of",
    "draw",
    "names_same_concept",
    "one_attribute_caption",
    "sample",
    "sample_hard",
    "write_world",
]
