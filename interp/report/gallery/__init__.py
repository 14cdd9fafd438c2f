"""A run's files -> a static gallery of latent cards that opens from the disk, without a network."""

from interp.report.gallery.build import build_gallery

__all__ = ["build_gallery"]
