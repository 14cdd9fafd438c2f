"""The built-in world: drawn sketches and photos of which everything is known."""

from sae.world.drawing.draw import Drawing, draw
from sae.world.scene.captions import TEMPLATES, caption, one_attribute_caption
from sae.world.scene.concepts import (
    BY_NAME,
    CONCEPTS,
    OBJECTS,
    PLANTED,
    Concept,
    concept_named,
    names_same_concept,
)
from sae.world.scene.scene import Placed, Scene, concepts_of, sample
from sae.world.write import WorldInfo, write_world

__all__ = [
    "BY_NAME",
    "CONCEPTS",
    "OBJECTS",
    "PLANTED",
    "TEMPLATES",
    "Concept",
    "Drawing",
    "Placed",
    "Scene",
    "WorldInfo",
    "caption",
    "concept_named",
    "concepts_of",
    "draw",
    "names_same_concept",
    "one_attribute_caption",
    "sample",
    "write_world",
]
