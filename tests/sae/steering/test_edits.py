from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, SAEConfig
from sae.steering.edits import (
    Edit,
    covers,
    edit_tokens,
    latent_maxima,
    parse_edits,
    with_maxima,
)
from tests.support.sae.engine_pairs import random_model
from tests.support.sae.stores import write_store

D, N_LATENTS, N = 6, 12, 9


@pytest.fixture
def model() -> SAE:
    made = random_model(D, N_LATENTS, 3).eval()
    made.mean += torch.linspace(-1, 1, D)
    made.scale *= 1.7
    return made


@pytest.fixture
def x() -> torch.Tensor:
    return 2 * torch.randn(N, D, generator=torch.Generator().manual_seed(3))


def top_k(model: SAE, x: torch.Tensor) -> NDArray[np.float64]:
    """The dense codes (n, n_latents), by hand."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    pre = ((x.double().numpy() - w["mean"]) / w["scale"] - w["b_dec"]) @ w["W_enc"].T + w["b_enc"]
    kept = np.argsort(-pre, axis=1)[:, : model.config.k]
    z = np.zeros_like(pre)
    np.put_along_axis(z, kept, np.maximum(np.take_along_axis(pre, kept, 1), 0), 1)
    return z


def test_tokens_differ_by_the_decoded_change_alone_and_only_where_it_is_made(
    model: SAE, x: torch.Tensor
) -> None:
    edits = [Edit(2, "set", 4.0), Edit(7, "add", -1.5), Edit(11, "multiply", 0.0)]
    where = torch.rand(N, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    where[0] = False
    with torch.no_grad():
        found = edit_tokens(model, x, model.encode(x), edits, where)
    z = top_k(model, x)
    assert (z[:, 11] > 0).any()  # else the last edit would change nothing
    edited = z.copy()
    for place, (latent, new) in enumerate({2: 4.0 + 0 * z, 7: z - 1.5, 11: 0 * z}.items()):
        at = where[:, place].numpy()
        edited[at, latent] = new[at, latent]
    w_dec = model.W_dec.detach().double().numpy()
    expected = x.numpy() + float(model.scale) * (edited - z) @ w_dec
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    untouched = ~where.any(1)
    assert torch.equal(found[untouched], x[untouched])


def test_an_edit_that_changes_nothing_gives_the_tokens_back_bit_for_bit(
    model: SAE, x: torch.Tensor
) -> None:
    edits = [Edit(latent, "multiply", 1.0) for latent in range(N_LATENTS)]
    everywhere = torch.ones(N, N_LATENTS, dtype=torch.bool)
    assert torch.equal(edit_tokens(model, x, model.encode(x), edits, everywhere), x)


def test_where_an_sae_scales_each_row_the_edit_is_scaled_with_it(x: torch.Tensor) -> None:
    config = SAEConfig(d=D, n_latents=N_LATENTS, k=3, input_norm="constant_norm")
    model = SAE(config)
    model.load_state_dict(random_model(D, N_LATENTS, 3).state_dict())
    where = torch.ones(N, 1, dtype=torch.bool)
    with torch.no_grad():
        found = edit_tokens(model, x, model.encode(x), [Edit(4, "add", 2.0)], where)
    factor = np.linalg.norm(x.numpy(), axis=1, keepdims=True) / np.sqrt(D)
    expected = x.numpy() + factor * 2.0 * model.W_dec[4].detach().numpy()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_edits_are_read_as_they_are_typed() -> None:
    assert parse_edits(["17=set:2xmax", "3=add:-.5", "0=multiply:0"], 18) == [
        Edit(17, "set", 2.0, of_max=True),
        Edit(3, "add", -0.5),
        Edit(0, "multiply", 0.0),
    ]
    edits = [Edit(17, "set", -2.0, of_max=True), Edit(3, "add", 1.0)]
    assert with_maxima(edits, [5.0, 9.0]) == [Edit(17, "set", -10.0), Edit(3, "add", 1.0)]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["18=set:1"], "the SAE has the latents 0 to 17"),
        (["3=set:1", "3=add:2"], "--latent 3 is given twice"),
        (["3=multiply:2xmax"], "is no edit"),
        (["3=set:nan"], "is no edit"),
        (["3=set:"], "is no edit"),
        (["-3=set:1"], "is no edit"),
        (["3=double:1"], "is no edit"),
        (["17"], "is no edit"),
        ([], "no --latent is given"),
    ],
)
def test_what_is_no_edit_is_said_in_one_line(texts: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        parse_edits(texts, 18)
    assert "\n" not in str(error.value)


def test_maxima_are_the_largest_activations_over_the_tokens_that_the_sae_reads(
    tmp_path: Path, model: SAE
) -> None:
    x = 2 * torch.randn(10, 4, D, generator=torch.Generator().manual_seed(5))
    x[3, 0] = 50 * model.W_enc[1].detach()  # a CLS token that would win
    write_store(tmp_path / "store", x, layer="1", tokens="all")
    store = EmbeddingStore.open(tmp_path / "store")
    patches = SAE(SAEConfig(d=D, n_latents=N_LATENTS, k=3, tokens="patch"))
    patches.load_state_dict(model.state_dict())
    z = top_k(model, store.read(np.arange(10)).float().flatten(0, 1)).reshape(10, 4, -1)
    cpu = torch.device("cpu")
    whole = latent_maxima(model, store, [1, 5], cpu)
    np.testing.assert_allclose(whole, z.max((0, 1))[[1, 5]], rtol=1e-5)
    found = latent_maxima(patches, store, [1, 5], cpu)
    np.testing.assert_allclose(found, z[:, 1:].max((0, 1))[[1, 5]], rtol=1e-5)
    rows = np.array([0, 1, 2])
    found = latent_maxima(patches, store, [1, 5], cpu, rows)
    np.testing.assert_allclose(found, z[:3, 1:].max((0, 1))[[1, 5]], rtol=1e-5)
    write_store(tmp_path / "cls", x[:, :1], layer="1", tokens="cls")
    with pytest.raises(UserError, match=r"the SAE reads the tokens 'patch', but .* holds 'cls'"):
        covers(EmbeddingStore.open(tmp_path / "cls"), "patch")
