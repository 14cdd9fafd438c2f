"""SAEs of the run's shape that have learned nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.evidence.control_saes import CONTROLS, RAREST, control_sae
from interp.evidence.reader import EvidenceReader
from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.model.identity import sae_identity
from tests.support.interp.collected import make_sae


@pytest.mark.parametrize("kind", list(CONTROLS))
def test_a_control_has_the_trained_shape_and_random_tied_unit_rows(
    kind: str, reader: EvidenceReader
) -> None:
    trained = make_sae()
    model = control_sae(kind, trained, reader)
    assert (model.d, model.n_latents) == (trained.d, trained.n_latents)
    assert torch.equal(model.W_enc, model.W_dec)
    assert torch.allclose(model.W_dec.norm(dim=1), torch.ones(model.n_latents), atol=1e-5)
    assert not torch.allclose(model.W_dec, trained.W_dec)
    assert sae_identity(model) == sae_identity(control_sae(kind, trained, reader))


def tokens(store: EmbeddingStore) -> torch.Tensor:
    return store.read(np.arange(store.info.n_images)).flatten(0, 1).float()


def test_an_untrained_sae_keeps_as_many_latents_a_token_as_the_trained_one(
    reader: EvidenceReader, store: EmbeddingStore
) -> None:
    trained = reader.latents["token_frequency"].sum()
    model = control_sae("untrained", make_sae(), reader)
    codes = model.encode(tokens(store))
    assert float((codes.acts > 0).sum(1).float().mean()) == pytest.approx(trained, abs=0.6)


def test_a_random_direction_is_active_as_often_as_the_trained_latent(
    reader: EvidenceReader, store: EmbeddingStore
) -> None:
    model = control_sae("random", make_sae(), reader)
    active = model.encode(tokens(store)).dense(model.n_latents) > 0
    wanted = np.clip(np.nan_to_num(reader.latents["token_frequency"]), RAREST, 0.5)
    rates, rare = active.float().mean(0).numpy(), wanted < 0.3  # half of a direction is below 0
    assert rates[rare] == pytest.approx(wanted[rare], abs=0.02)


def test_written_latents_have_no_shape_to_copy(reader: EvidenceReader) -> None:
    with pytest.raises(UserError, match="--control shuffled needs none"):
        control_sae("untrained", None, reader)
