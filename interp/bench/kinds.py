"""A kind of constructed latent -> how many concepts it is made of. Light to import."""

from __future__ import annotations

PARTS = {
    "pure": 1,
    "noisy": 1,
    "even": 2,
    "uneven": 2,
    "absorbed": 2,
    "domain": 1,
    "noise": 0,
    "shuffled": 0,
    "random": 0,
}
"""The kinds, and how many concepts each is made of.

pure: active wherever its concept is true. noisy: silent on a sixth of these, and as many others
make it fire, less strongly. even, uneven: two concepts, with equally many images or three times as
many of the first. absorbed: the first concept where the second is not true. domain: its concept in
one domain alone. noise: random images. shuffled: the activations of a pure one on other images.
random: the images that lie furthest along a random direction of the embeddings."""
KINDS = tuple(PARTS)
