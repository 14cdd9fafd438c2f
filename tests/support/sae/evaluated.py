"""Sizes of a small evaluation."""

from __future__ import annotations

import torch

N, T, D, L = 60, 3, 5, 20
CPU = torch.device("cpu")
