"""A foreign SAE in one form, before it is ours, and the step to ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.model.sae import SAE, SAEConfig
from sae.model.sparsity import ALL_WITH_K
from sae.untrusted.finite import require_finite

Rule = Literal[
    "topk",
    "signed_topk",
    "abs_topk",
    "group_max",
    "batch_topk",
    "jumprelu",
    "relu",
    "dense_gelu",
    "dense_softplus",
]
InputNorm = Literal["", "layer_norm", "constant_norm", "centred_layer_norm"]
Lacks = Literal["", "mean", "scale", "mean_scale", "mean_std", "perhaps", "threshold"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Foreign:
    """A foreign SAE in one form. Raises `UserError` when its tensors do not fit or are not finite.

    Latents are `rule(W_enc (x - b_dec) + b_enc)`, without the b_dec where `pre_bias` is False; the
    reconstruction is `latents W_dec + b_dec`.
    """

    format: str
    """What wrote it: "saev schema 5"."""
    W_enc: Tensor
    """(n_latents, d), any float type; a transposed view will do."""
    b_enc: Tensor
    """(n_latents,)"""
    W_dec: Tensor
    """(n_latents, d), as the peer uses it: normalised where the peer does."""
    b_dec: Tensor
    """(d,)"""
    rule: Rule
    k: int = 0
    """Latents kept per token; 0 for the rules that have no k."""
    threshold: Tensor | None = None
    """What a latent must exceed: () for batch_topk, (n_latents,) for jumprelu."""
    pre_bias: bool = False
    """The encoder subtracts b_dec."""
    mean: Tensor | None = None
    """(d,): the input is (x - mean) / scale first, and the output is put back."""
    scale: float = 1.0
    input_norm: InputNorm = ""
    """What is done to each row of x: see `SAEConfig.input_norm`."""
    soft_cap: float = 0.0
    """See `SAEConfig.soft_cap`."""
    prefixes: tuple[int, ...] = ()
    """Matryoshka: see `SAEConfig.prefixes`."""
    clip: str = ""
    layer: str = ""
    tokens: str = ""
    rows: str = ""
    """These four as in `SAEConfig`."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    lacks: Lacks = ""
    """What the file does not hold and must be estimated from a store; "perhaps": it does not tell
    whether the SAE was trained on centred and scaled embeddings; "mean_std": it was, over their
    deviation; "threshold": of a batch_topk."""

    def __post_init__(self) -> None:
        if self.W_enc.ndim != 2:
            raise UserError(f"{self.format}: W_enc has shape {tuple(self.W_enc.shape)}, not (n, d)")
        n_latents, d = self.W_enc.shape
        self._check("W_enc", self.W_enc, (n_latents, d))
        self._check("W_dec", self.W_dec, (n_latents, d))
        self._check("b_enc", self.b_enc, (n_latents,))
        self._check("b_dec", self.b_dec, (d,))
        if self.mean is not None:
            self._check("mean", self.mean, (d,))
        if self.threshold is not None:
            shape = (n_latents,) if self.rule == "jumprelu" else ()
            self._check("threshold", self.threshold, shape)
        if not 0 < self.scale < float("inf"):
            raise UserError(f"{self.format}: the input scale {self.scale} must be above 0")
        if self.input_norm not in get_args(InputNorm):
            raise UserError(f"{self.format}: the input norm {self.input_norm!r} is not known")

    def _check(self, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(value.shape) != shape:
            raise UserError(
                f"{self.format}: {name} has shape {tuple(value.shape)}, but W_enc has "
                f"{tuple(self.W_enc.shape)}, so it should be {shape}; the file is damaged or of "
                "another kind"
            )
        require_finite(self.format, name, value)


def to_sae(foreign: Foreign, seed: int = 0) -> SAE:
    """Our SAE with exactly the peer's latents and reconstruction, in float32.

    Decoder rows keep the peer's length: they need not be unit.
    """
    n_latents, d = foreign.W_enc.shape
    config = SAEConfig(
        d=d,
        n_latents=n_latents,
        k=foreign.k if foreign.rule in ALL_WITH_K else 0,
        activation=foreign.rule,
        prefixes=foreign.prefixes,
        input_norm=foreign.input_norm,
        soft_cap=foreign.soft_cap,
        source=foreign.format,
        clip=foreign.clip,
        layer=foreign.layer,
        tokens=foreign.tokens,
        rows=foreign.rows,
        seed=seed,
    )
    with torch.device("meta"):
        model = SAE(config)
    # Taken over, not copied: a dictionary of 98,304 latents is in memory only once.
    model.load_state_dict(_state(foreign), assign=True)
    return model.eval()


def jumprelu_of_gated(
    W_enc: Tensor, r_mag: Tensor, gate_bias: Tensor, mag_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """W_enc, b_enc and threshold of the JumpReLU that a Gated SAE is (Rajamanoharan et al. 2024).

    The gate w x + gate_bias > 0 says of u = exp(r_mag) w x + mag_bias that it exceeds
    mag_bias - exp(r_mag) gate_bias.
    """
    gain = r_mag.double().exp()
    W = (W_enc * gain[:, None]).to(W_enc.dtype)
    return W, mag_bias, (mag_bias - gain * gate_bias).clamp(min=0).to(mag_bias.dtype)


def just_below(threshold: Tensor) -> Tensor:
    """() The value that must be exceeded, of one that must be reached."""
    threshold = threshold.float().reshape(())
    return threshold.nextafter(threshold.new_tensor(-float("inf")))


@torch.no_grad()
def _state(foreign: Foreign) -> dict[str, Tensor]:
    d = foreign.W_enc.shape[1]
    W_enc, W_dec = _plain(foreign.W_enc), _plain(foreign.W_dec)
    if _overlap(W_enc, W_dec):  # tied
        W_dec = W_dec.clone()
    state = {
        "W_enc": W_enc,
        "W_dec": W_dec,
        "b_dec": _plain(foreign.b_dec).clone(),
        "b_enc": _plain(_encoder_bias(foreign)).clone(),
        "mean": torch.zeros(d) if foreign.mean is None else _plain(foreign.mean).clone(),
        "scale": torch.tensor(float(foreign.scale)),
    }
    if foreign.rule == "batch_topk":
        # The peers keep what exceeds the threshold, our rule what reaches it.
        border = _required(foreign).float().clamp(min=0)
        state["threshold"] = border.nextafter(border.new_tensor(float("inf")))
    if foreign.rule == "jumprelu":
        # What is negative and above a negative threshold is cut by the peers' ReLU.
        state["log_threshold"] = _required(foreign).float().clamp(min=0).log()
    return state


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two contiguous tensors share memory."""
    n_bytes = (t.numel() * t.element_size() for t in (a, b))
    end_a, end_b = (t.data_ptr() + n for t, n in zip((a, b), n_bytes, strict=True))
    return a.data_ptr() < end_b and b.data_ptr() < end_a


def _plain(value: Tensor) -> Tensor:
    return value.detach().float().contiguous()


def _encoder_bias(foreign: Foreign) -> Tensor:
    if foreign.pre_bias:
        return foreign.b_enc
    # Ours always subtracts b_dec: W (x - b_dec) + (b_enc + W b_dec) = W x + b_enc.
    b_dec = foreign.b_dec.to(foreign.W_enc.dtype)
    return foreign.b_enc.double() + (foreign.W_enc @ b_dec).double()


def _required(foreign: Foreign) -> Tensor:
    if foreign.threshold is None:
        raise UserError(
            f"{foreign.format}: the file holds no threshold, which {foreign.rule} needs"
        )
    return foreign.threshold
