"""The sparse autoencoder: Linear -> sparsity rule -> Linear, on centred and scaled embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae.core.errors import UserError, quote
from sae.core.files import FORMAT, read_config, write_json, write_tensors
from sae.model.sparsity import (
    ALL_RULES,
    ALL_WITH_K,
    AbsTopK,
    BatchTopK,
    Codes,
    GroupMax,
    JumpReLU,
    ReLU,
    Rows,
    Rule,
    Smooth,
    TopK,
)
from sae.model.weights import read_weights

__all__ = ["SAE", "Codes", "Reconstruction", "SAEConfig", "is_ours"]

CONFIG = "config.json"
WEIGHTS = "sae.safetensors"
INPUT_NORMS = ("", "layer_norm", "constant_norm", "centred_layer_norm")
ROW_EPS = 1e-5
"""Added to a row's deviation by SAELens and openai/sparse_autoencoder."""
# Small ones rise too slowly: on planted data of 8 directions a token, after 400 steps, 0.01 left
# 300 latents active per token and found none of the directions, 1 left 31, this 10 and found 86%.
START_THRESHOLD = 2.0
"""Of each JumpReLU latent: at first about 2% of the latents exceed it on a token."""


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """Shape and origin of an SAE, as in its config.json."""

    format: int = FORMAT
    d: int
    """Width of the embeddings."""
    n_latents: int
    """Rows of the dictionary."""
    k: int
    """Latents kept per token; 0 for the rules that have no k."""
    activation: str = "topk"
    """The rule that keeps them: "topk", "signed_topk", "batch_topk", "jumprelu" or "relu"; in some
    imported SAEs "abs_topk", "group_max", "dense_gelu" or "dense_softplus"."""
    prefixes: tuple[int, ...] = ()
    """Matryoshka: so many first latents rebuild the input without the others, in training after all
    latents have competed for the k places; the last is all of them."""
    input_norm: str = ""
    """What is done to each row of x first, in some imported SAEs: "layer_norm" takes its own mean
    out and divides by its own deviation, "constant_norm" gives it the length sqrt(d);
    "centred_layer_norm" is the first of them, but after the SAE's own mean and scale."""
    soft_cap: float = 0.0
    """Activations a become soft_cap tanh(a / soft_cap), in some imported SAEs; 0: they stay."""
    source: str = ""
    """The foreign format that it was imported from; "": trained here."""
    source_sha256: str = ""
    """Content hash of the file that it was imported from, as 64 hex digits."""
    clip: str = ""
    """Name of the CLIP whose embeddings it was trained on; "" here and below: not known."""
    layer: str = ""
    """"projected" or a block's number."""
    tokens: str = ""
    """"cls", "patch" or "all"."""
    rows: str = ""
    """"raw", or "unit" where each embedding was brought to length 1 first."""
    store: str = ""
    """Identity of the store it was trained on."""
    holdout: float = 0.1
    """Share of images it has not seen: those with `fraction(image_id, "holdout") < holdout`."""
    calibration: float = 0.0
    """Share of images, the first of those held out, on which the threshold of a BatchTopK was set:
    neither training nor evaluation uses them. 0: it is the one that training learned."""
    seed: int = 0
    version: str = ""
    """Version of the program that wrote it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", tuple(self.prefixes))  # JSON has lists alone
        if self.activation not in ALL_RULES:
            known = ", ".join(map(repr, ALL_RULES))
            raise UserError(f"activation {self.activation!r} is not known; known: {known}")
        if self.input_norm not in INPUT_NORMS:
            raise UserError(f"input_norm {self.input_norm!r} is not known; known: {INPUT_NORMS}")
        least_k = 1 if self.activation in ALL_WITH_K else 0
        if min(self.d, self.n_latents) < 1 or self.k < least_k:
            raise UserError(
                f"d {self.d}, n_latents {self.n_latents} and k {self.k} must all be at least 1 "
                "(k 0 is for the rules without a k)"
            )
        if self.d * self.n_latents > 1 << 48:  # more than any machine holds
            raise UserError(f"d {self.d} and n_latents {self.n_latents} are of no SAE that is")
        if self.k > self.n_latents:
            raise UserError(f"k {self.k} is larger than n_latents {self.n_latents}; lower k")
        if self.activation == "group_max" and self.n_latents % self.k:
            raise UserError(
                f"n_latents {self.n_latents} must be a multiple of the k {self.k} groups"
            )
        if not 0 <= self.soft_cap < math.inf:
            raise UserError(f"soft_cap {self.soft_cap} must be 0 (no cap) or above")
        self._check_prefixes()

    def _check_prefixes(self) -> None:
        sizes = list(self.prefixes)
        if sizes and (sizes != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.n_latents):
            raise UserError(
                f"prefixes {sizes} must rise, from 1 at least to n_latents {self.n_latents}"
            )


class Reconstruction(NamedTuple):
    """What a pass through the SAE gives."""

    x_hat: Tensor
    """(n, d), in the input's own scale."""
    codes: Codes


class SAE(nn.Module):
    """A sparse autoencoder. Raw embeddings go in and come out; mean and scale are inside.

    Row `latent` of `W_dec` is the direction of that latent, of unit length, in centred and scaled
    space; the same direction holds in raw space, where the scale multiplies its activation.
    """

    mean: Tensor
    scale: Tensor
    threshold: Tensor
    """BatchTopK alone: (), what an activation must reach; 0 until training has learned it."""

    def __init__(self, config: SAEConfig) -> None:
        super().__init__()
        self.config = config
        self.W_enc = nn.Parameter(torch.zeros(config.n_latents, config.d))
        self.b_enc = nn.Parameter(torch.zeros(config.n_latents))
        self.W_dec = nn.Parameter(torch.zeros(config.n_latents, config.d))
        self.b_dec = nn.Parameter(torch.zeros(config.d))
        self.register_buffer("mean", torch.zeros(config.d))
        self.register_buffer("scale", torch.ones(()))
        if config.activation == "batch_topk":
            self.register_buffer("threshold", torch.zeros(()))
        if config.activation == "jumprelu":
            start = torch.full((config.n_latents,), math.log(START_THRESHOLD))
            self.log_threshold = nn.Parameter(start)

    @property
    def sparsity(self) -> Rule:
        """The rule that decides which latents a token keeps, with its thresholds where it has any.

        Made anew at each call: moving the module to a device replaces its tensors.
        """
        match self.config.activation:
            case "batch_topk":
                return BatchTopK(self.config.k, self.threshold)
            case "jumprelu":
                return JumpReLU(self.log_threshold)
            case "relu":
                return ReLU()
            case "abs_topk":
                return AbsTopK(self.config.k)
            case "group_max":
                return GroupMax(self.config.k)
            case "dense_gelu" | "dense_softplus" as name:
                return Smooth(name)
            case name:
                return TopK(self.config.k, signed=name == "signed_topk")

    @property
    def d(self) -> int:
        return self.config.d

    @property
    def n_latents(self) -> int:
        return self.config.n_latents

    def encode(self, x: Tensor, n_latents: int = 0, own: bool = False) -> Codes:
        """Activations of raw embeddings (n, d), of any float type.

        With `n_latents`, only those of so many first latents, as a Matryoshka SAE's prefix has
        them: latents beyond it compete for a place among the k, and are then left out. With `own`
        they do not compete: the prefix is a dictionary by itself, and keeps the k largest of its
        own for each token, whatever their rule's threshold.
        """
        pre, rule = self.encode_pre(x), self.sparsity
        if own and n_latents:
            pre = pre[:, :n_latents]
            rule = TopK(self.config.k) if isinstance(rule, BatchTopK) else rule
        codes = rule.keep(pre)
        if cap := self.config.soft_cap:
            codes = codes._replace(acts=cap * torch.tanh(codes.acts / cap))
        codes = codes._replace(rows=self._rows(x))
        return codes.first(n_latents) if n_latents else codes

    def decode(self, codes: Codes) -> Tensor:
        """Embeddings (n, d) in the input's own scale.

        Raises `UserError` for codes without `rows`, where the SAE has an `input_norm`.
        """
        norm, x_hat = self.config.input_norm, self.decode_centred(codes)
        if not norm:
            return self._uncentred(x_hat)
        if codes.rows is None:
            raise UserError(
                f"these codes do not hold what this SAE ({norm}) has taken out of each row: make "
                "them with codes._replace(acts=...), or decode with model.rebuild(x, codes)"
            )
        shift, factor = codes.rows
        if norm == "centred_layer_norm":
            return self._uncentred(x_hat * factor + shift)
        return self._uncentred(x_hat) * factor + shift

    def forward(self, x: Tensor) -> Reconstruction:
        codes = self.encode(x)
        return Reconstruction(self.decode(codes), codes)

    def rebuild(self, x: Tensor, codes: Codes) -> Tensor:
        """Embeddings (n, d) from codes, which may have been changed, of the raw embeddings x."""
        return self.decode(codes._replace(rows=self._rows(x)))

    def encode_pre(self, x: Tensor) -> Tensor:
        """Pre-activations (n, n_latents) of raw embeddings: before the sparsity rule."""
        return self.pre_of_centred(self.centre(x))

    def centre(self, x: Tensor) -> Tensor:
        """Raw embeddings (n, d) in the SAE's own space: mean 0, mean square 1 per dimension."""
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ValueError(f"expected embeddings (n, {self.d}), got {tuple(x.shape)}")
        norm, x = self.config.input_norm, x.to(self.W_enc.dtype)
        if norm == "centred_layer_norm":
            return _normed(self._centred(x), norm)
        return self._centred(_normed(x, norm) if norm else x)

    def pre_of_centred(self, x: Tensor) -> Tensor:
        """Pre-activations of centred embeddings: W_enc (x - b_dec) + b_enc."""
        # b_dec goes in through the bias: its gradient then costs no product over the whole batch.
        return F.linear(x, self.W_enc, self.b_enc - self.W_enc @ self.b_dec)  # (n, n_latents)

    def decode_centred(self, codes: Codes) -> Tensor:
        """Embeddings (n, d) in the SAE's own space."""
        acts = codes.acts.to(self.W_dec.dtype)
        kept = F.embedding_bag(codes.latents, self.W_dec, per_sample_weights=acts, mode="sum")
        return kept + self.b_dec

    def _centred(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale

    def _uncentred(self, x: Tensor) -> Tensor:
        return x * self.scale + self.mean

    def _rows(self, x: Tensor) -> Rows | None:
        """What `centre` takes out of each row of raw embeddings, as it is put back."""
        norm, x = self.config.input_norm, x.to(self.W_enc.dtype)
        if not norm:
            return None
        shift, factor = _row_norm(self._centred(x) if norm == "centred_layer_norm" else x, norm)
        # The peers put the deviation back without the small number that kept it above 0.
        return Rows(shift, factor if norm == "constant_norm" else factor - ROW_EPS)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Bring every decoder row to unit length, in place."""
        self.W_dec.copy_(F.normalize(self.W_dec, dim=1))

    @torch.no_grad()
    def project_decoder_gradient(self) -> None:
        """Take out of each decoder row's gradient what would only change its length."""
        if self.W_dec.grad is None:
            return
        along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
        self.W_dec.grad.addcmul_(along, self.W_dec, value=-1)

    def save(self, folder: Path | str) -> None:
        """Write sae.safetensors, then config.json: a folder without the latter is unfinished."""
        folder = Path(folder)
        (folder / CONFIG).unlink(missing_ok=True)
        state = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        write_tensors(folder / WEIGHTS, state)
        write_json(folder / CONFIG, self.config)

    @classmethod
    def load(cls, folder: Path | str, device: str | torch.device = "cpu") -> SAE:
        """Read what `save` wrote. Raises `UserError` when the folder is unfinished or damaged."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(
                f"{folder} is not a folder; `sae train --out {quote(folder)}` makes one"
            )
        remedy = f"run `sae train --out {quote(folder)}` again"
        config = read_config(folder / CONFIG, SAEConfig, remedy)
        with torch.device("meta"):  # sizes that are wrong must cost no memory
            shapes = cls(config).state_dict()
        state = read_weights(folder / WEIGHTS, shapes, remedy)
        model = cls(config)
        model.load_state_dict(state)
        return model.to(device).eval()


def is_ours(path: Path) -> bool:
    """A folder with our config.json, or with our weights and, being unfinished, no settings."""
    config = path / CONFIG
    if not config.is_file():
        return (path / WEIGHTS).exists() and not (path / "cfg.json").exists()
    with config.open("rb") as file:
        start = file.read(4096)
    return (b'"format"' in start and b'"n_latents"' in start) or (path / WEIGHTS).exists()


def _row_norm(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """What each row of x (n, d) is freed of, and then divided by: both (n, 1)."""
    if kind == "constant_norm":
        return x.new_zeros(len(x), 1), x.norm(dim=1, keepdim=True) / math.sqrt(x.shape[1])
    return x.mean(1, keepdim=True), x.std(1, keepdim=True) + ROW_EPS


def _normed(x: Tensor, kind: str) -> Tensor:
    shift, factor = _row_norm(x, kind)
    return (x - shift) / factor
