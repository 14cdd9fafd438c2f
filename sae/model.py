"""The sparse autoencoder: Linear -> ReLU -> TopK -> Linear, on centred and scaled embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sae.errors import UserError
from sae.files import FORMAT, read_config, replacing, write_json
from sae.sparsity import Codes, TopK

if TYPE_CHECKING:
    from sae.store import StoreInfo

__all__ = ["SAE", "Codes", "Reconstruction", "SAEConfig", "load", "require_match"]

CONFIG = "config.json"
WEIGHTS = "sae.safetensors"


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """Shape and origin of an SAE, as in its config.json."""

    format: int = FORMAT
    d: int
    """Width of the embeddings."""
    n_latents: int
    """Rows of the dictionary."""
    k: int
    """Latents kept per token."""
    activation: str = "topk"
    """The rule that keeps them; only "topk" so far."""
    clip: str = ""
    """Name of the CLIP whose embeddings it was trained on; "" here and below: not known."""
    layer: str = ""
    """"projected" or a block's number."""
    tokens: str = ""
    """"cls", "patch" or "all"."""
    store: str = ""
    """Identity of the store it was trained on."""
    holdout: float = 0.1
    """Share of images it has not seen: those with `fraction(image_id, "holdout") < holdout`."""
    seed: int = 0
    version: str = ""
    """Version of the program that wrote it."""

    def __post_init__(self) -> None:
        if self.activation != "topk":
            raise UserError(f"activation {self.activation!r} is not known; known: 'topk'")
        if min(self.d, self.n_latents, self.k) < 1:
            raise UserError(
                f"d {self.d}, n_latents {self.n_latents} and k {self.k} must all be at least 1"
            )
        if self.k > self.n_latents:
            raise UserError(f"k {self.k} is larger than n_latents {self.n_latents}; lower k")


class Reconstruction(NamedTuple):
    """What a pass through the SAE gives."""

    x_hat: Tensor
    """(n, d), in the input's own scale."""
    codes: Codes


class SAE(nn.Module):
    """A TopK sparse autoencoder. Raw embeddings go in and come out; mean and scale are inside.

    Row `latent` of `W_dec` is the direction of that latent, of unit length, in centred and scaled
    space; the same direction holds in raw space, where the scale multiplies its activation.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: SAEConfig) -> None:
        super().__init__()
        self.config = config
        self.sparsity = TopK(config.k)
        self.W_enc = nn.Parameter(torch.zeros(config.n_latents, config.d))
        self.b_enc = nn.Parameter(torch.zeros(config.n_latents))
        self.W_dec = nn.Parameter(torch.zeros(config.n_latents, config.d))
        self.b_dec = nn.Parameter(torch.zeros(config.d))
        self.register_buffer("mean", torch.zeros(config.d))
        self.register_buffer("scale", torch.ones(()))

    @property
    def d(self) -> int:
        return self.config.d

    @property
    def n_latents(self) -> int:
        return self.config.n_latents

    def encode(self, x: Tensor) -> Codes:
        """Activations of raw embeddings (n, d), of any float type."""
        return self.sparsity.keep(self.encode_pre(x))

    def decode(self, codes: Codes) -> Tensor:
        """Embeddings (n, d) in the input's own scale."""
        return self.decode_centred(codes) * self.scale + self.mean

    def forward(self, x: Tensor) -> Reconstruction:
        codes = self.encode(x)
        return Reconstruction(self.decode(codes), codes)

    def encode_pre(self, x: Tensor) -> Tensor:
        """Pre-activations (n, n_latents) of raw embeddings: before ReLU and TopK."""
        return self.pre_of_centred(self.centre(x))

    def centre(self, x: Tensor) -> Tensor:
        """Raw embeddings (n, d) in the SAE's own space: mean 0, mean square 1 per dimension."""
        if x.ndim != 2 or x.shape[1] != self.d:
            raise ValueError(f"expected embeddings (n, {self.d}), got {tuple(x.shape)}")
        return (x.to(self.W_enc.dtype) - self.mean) / self.scale

    def pre_of_centred(self, x: Tensor) -> Tensor:
        """Pre-activations of centred embeddings: W_enc (x - b_dec) + b_enc."""
        # b_dec goes in through the bias: its gradient then costs no product over the whole batch.
        return F.linear(x, self.W_enc, self.b_enc - self.W_enc @ self.b_dec)  # (n, n_latents)

    def decode_centred(self, codes: Codes) -> Tensor:
        """Embeddings (n, d) in the SAE's own space."""
        acts = codes.acts.to(self.W_dec.dtype)
        kept = F.embedding_bag(codes.latents, self.W_dec, per_sample_weights=acts, mode="sum")
        return kept + self.b_dec

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
        with replacing(folder / WEIGHTS) as part:
            state = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
            save_file(state, part)
        write_json(folder / CONFIG, self.config)

    @classmethod
    def load(cls, folder: Path | str, device: str | torch.device = "cpu") -> SAE:
        """Read what `save` wrote. Raises `UserError` when the folder is unfinished or damaged."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; `sae train --out {folder}` makes one")
        remedy = f"run `sae train --out {folder}` again"
        model = cls(read_config(folder / CONFIG, SAEConfig, remedy))
        model.load_state_dict(_read_weights(folder / WEIGHTS, model, remedy))
        return model.to(device).eval()


def load(path: Path | str, device: str | torch.device = "cpu") -> SAE:
    """Load an SAE from a folder with config.json and sae.safetensors."""
    return SAE.load(path, device)


def require_match(config: SAEConfig, info: StoreInfo) -> None:
    """Raise `UserError` when the SAE does not fit the store: other width, CLIP or layer.

    The choice of tokens may differ: an SAE trained on all tokens may look at patches only.
    """
    for name in ("d", "clip", "layer"):
        ours, theirs = getattr(config, name), getattr(info, name)
        if ours not in ("", theirs):
            raise UserError(
                f"the SAE was trained on {name} {ours!r}, but the store has {name} {theirs!r}; "
                "use the store that it was trained on, or embed again with those settings"
            )


def _read_weights(path: Path, model: SAE, remedy: str) -> dict[str, Tensor]:
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{path}: {name} has shape {found.get(name)}, "
                f"but {CONFIG} asks for {expected.get(name)}; {remedy}"
            )
    return state
