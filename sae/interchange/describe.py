"""What an imported SAE does to an embedding, in one line: a user must see it to believe it."""

from __future__ import annotations

from dataclasses import dataclass

from sae.interchange.foreign import Foreign

_NORMS = {
    "": "",
    "layer_norm": "x: each row to mean 0, deviation 1",
    "constant_norm": "x: each row to length sqrt(d)",
    "centred_layer_norm": "each row to mean 0, deviation 1",  # after mean and scale
}


@dataclass(frozen=True)
class Maths:
    """How a foreign SAE computes its latents."""

    rule: str
    """One of `foreign.Rule`."""
    k: int
    """Latents kept per token; 0 for the rules that have no k."""
    pre_bias: bool
    """The encoder subtracts the decoder's bias."""
    input_norm: str
    """What is done to each row of x; "": nothing."""
    centred: bool
    """A mean is subtracted from x."""
    scale: float
    """By which x is then divided."""
    soft_cap: float
    """Of the activations; 0: none."""
    d: int
    n_latents: int

    def line(self) -> str:
        """ "k 4: the largest of relu(W_enc (x - b_dec) + b_enc) (pre-bias); d 32, 128 latents"."""
        pre = f"W_enc {'(x - b_dec)' if self.pre_bias else 'x'} + b_enc"
        kept = {
            "topk": f"k {self.k}: the largest of relu({pre})",
            "signed_topk": f"k {self.k}: the largest of {pre}, negative ones too",
            "abs_topk": f"k {self.k}: of {pre} the largest in size, with their signs",
            "group_max": f"k {self.k}: the largest of relu({pre}) in each of {self.k} groups",
            "dense_gelu": f"gelu({pre})",
            "dense_softplus": f"softplus({pre})",
            "batch_topk": f"{pre} where it reaches one threshold for all (k {self.k} in training)",
            "jumprelu": f"{pre} where it exceeds the latent's own threshold",
            "relu": f"relu({pre})",
        }[self.rule]
        bias = "pre-bias" if self.pre_bias else "no pre-bias"
        cap = f", a tanh caps them at {self.soft_cap:g}" if self.soft_cap else ""
        return f"{kept} ({bias}{cap}); {self._input()}; d {self.d}, {self.n_latents} latents"

    def _input(self) -> str:
        steps = [_NORMS.get(self.input_norm, f"x: {self.input_norm.replace('_', ' ')} of each row")]
        if self.centred or self.scale != 1:
            mean = "(x - mean)" if self.centred else "x"
            last = self.input_norm != "centred_layer_norm"
            steps.insert(last, f"{mean} / {self.scale:.4g} for x")
        return ", then ".join(step for step in steps if step) or "x as it is"


def maths_of(foreign: Foreign) -> Maths:
    """What the file's maths is."""
    n_latents, d = foreign.W_enc.shape
    return Maths(
        rule=foreign.rule,
        k=foreign.k,
        pre_bias=foreign.pre_bias,
        input_norm=foreign.input_norm,
        centred=foreign.mean is not None,
        scale=foreign.scale,
        soft_cap=foreign.soft_cap,
        d=d,
        n_latents=n_latents,
    )
