"""A model, an objective and a batch -> one training step.

Every engine does the same arithmetic as the plain one, up to rounding; the fast ones do less of
it, for fewer objectives. `sae.training.engines.choice` takes the fastest that can do what is asked.
"""
