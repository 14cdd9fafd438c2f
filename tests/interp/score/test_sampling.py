"""Which images test a label, and how they are dealt into grids."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.records.split import LeakError, split_of
from interp.records.types import TOO_FEW, Evidence, Explanation, Status
from interp.records.wording import GROUPED
from interp.score.nulls.shuffle import shuffle_labels
from interp.score.sampling import (
    Sample,
    SampleConfig,
    check_held_out,
    deal,
    draw_sample,
    is_enough,
    n_left_out,
)
from sae.core.errors import UserError
from sae.core.files import sha256_hex
from tests.support.interp.latents import MAX_ACT, explained, make_evidence
from tests.support.interp.scoring import Scripted, redness, score

CONFIG = SampleConfig()


def test_twenty_positives_come_four_from_each_of_five_strata() -> None:
    positives = draw_sample(make_evidence(), SampleConfig(grey=0.0)).positives
    assert Counter(e.stratum for e in positives) == dict.fromkeys(range(5), 4)
    assert len({e.image_id for e in positives}) == 20


def test_positives_in_the_grey_zone_are_left_out_and_made_up_for_by_other_strata() -> None:
    # Activations fall from 10 in steps of 1/6: below 5% of the maximum of 40 lie 11 of 60.
    evidence = make_evidence(max_act=4 * MAX_ACT)
    positives = draw_sample(evidence, CONFIG).positives
    assert len(positives) == 20
    assert min(e.act for e in positives) >= 0.05 * 4 * MAX_ACT
    assert min(e.act for e in evidence.of("score", "quantile")) <= 2


def test_the_top_list_fills_up_what_the_uniform_sample_lacks() -> None:
    evidence = make_evidence()
    few = [e for e in evidence.examples if e.kind != "quantile" or e.rank % 6 == 0]
    positives = draw_sample(dataclasses.replace(evidence, examples=tuple(few)), CONFIG).positives
    assert Counter(e.kind for e in positives) == {"quantile": 10, "top": 10}
    assert len({e.image_id for e in positives}) == 20


def test_negatives_are_half_hard_half_silent_in_the_domain_mix_of_the_positives() -> None:
    sample = draw_sample(make_evidence(), CONFIG)
    assert Counter(e.kind for e in sample.negatives) == {"hard": 10, "silent": 10}
    assert Counter(e.domain for e in sample.negatives) == Counter(
        e.domain for e in sample.positives
    )
    assert len({e.image_id for e in sample.negatives}) == 20


def test_missing_hard_images_are_made_up_for_by_silent_ones_of_the_same_domain() -> None:
    sample = draw_sample(make_evidence(n_hard=4), CONFIG)
    assert Counter(e.kind for e in sample.negatives) == {"hard": 4, "silent": 16}


def test_a_domain_without_silent_images_is_left_short_and_not_replaced_by_another() -> None:
    evidence = make_evidence()
    kept = [e for e in evidence.examples if e.act > 0 or e.domain == "sketch"]
    sample = draw_sample(dataclasses.replace(evidence, examples=tuple(kept)), CONFIG)
    sketches = sum(e.domain == "sketch" for e in sample.positives)
    assert len(sample.negatives) == sketches < 20


def test_fewer_images_than_asked_for_are_used_and_fewer_than_five_are_not_enough() -> None:
    some = draw_sample(make_evidence(n_active=9, n_silent=4, n_hard=3), CONFIG)
    assert (len(some.positives), len(some.negatives)) == (9, 7)
    assert is_enough(some, CONFIG)
    assert not is_enough(draw_sample(make_evidence(n_active=4), CONFIG), CONFIG)
    assert not is_enough(draw_sample(make_evidence(n_silent=4, n_hard=0), CONFIG), CONFIG)
    assert draw_sample(make_evidence(n_active=0), CONFIG) == ((), ())


PLACES = {"top": 0, "quantile": 0, "silent": 100, "hard": 200}
"""Where the names of a kind's groups begin; the strongest images are of the even sample too."""


def grouped(evidence: Evidence, size: int) -> Evidence:
    """Each `size` images of one kind and side, as they are ranked, are near-duplicates."""
    every = [sha256_hex(b"%d" % k) for k in range(900)]
    names = {side: [name for name in every if on(name, side)] for side in ("explain", "score")}
    groups = (names[e.side][PLACES[e.kind] + e.rank // size] for e in evidence.examples)
    pairs = zip(evidence.examples, groups, strict=True)
    return dataclasses.replace(
        evidence, examples=tuple(dataclasses.replace(e, group=group) for e, group in pairs)
    )


def on(name: str, side: str) -> bool:
    return split_of(name) == side


def test_of_near_duplicates_one_is_a_positive_and_one_a_negative() -> None:
    evidence = grouped(make_evidence(n_silent=32, n_hard=16), 2)
    sample = draw_sample(evidence, CONFIG)
    for images in sample:
        assert len({e.group for e in images}) == len(images)
    assert len(sample.positives) == 20  # of 30 pairs
    assert len(sample.negatives) == 20  # of 16 + 8 pairs
    assert n_left_out(evidence, CONFIG, sample) == 0
    many = grouped(make_evidence(n_silent=32, n_hard=16), 4)
    few = draw_sample(many, CONFIG)
    assert [len(images) for images in few] == [15, 12]
    assert n_left_out(many, CONFIG, few) == 13
    assert draw_sample(grouped(make_evidence(), 1), CONFIG).positives  # groups of one: as if none
    alone = grouped(make_evidence(), 1)
    ids = [[e.image_id for e in images] for images in draw_sample(alone, CONFIG)]
    assert ids == [[e.image_id for e in side] for side in draw_sample(make_evidence(), CONFIG)]


def test_a_score_with_fewer_images_for_near_duplicates_says_so() -> None:
    said = score(Scripted(redness), grouped(make_evidence(), 4))
    assert (said.n_positive, said.n_negative, said.note) == (15, 12, GROUPED)
    assert score(Scripted(redness), grouped(make_evidence(), 2)).note == ""
    gone = score(Scripted(redness), grouped(make_evidence(), 20))
    assert (gone.failure, gone.note) == (TOO_FEW, GROUPED)


def test_all_test_images_are_on_the_score_side() -> None:
    for side in draw_sample(make_evidence(), CONFIG):
        assert all(e.side == "score" and split_of(e.image_id) == "score" for e in side)


def test_an_explain_image_among_the_test_images_is_an_error_whatever_its_record_says() -> None:
    evidence = make_evidence()
    foreign = {e.image_id for e in evidence.of("explain", "silent")}
    relabelled = tuple(
        dataclasses.replace(e, side="score", rank=-1) if e.image_id in foreign else e
        for e in evidence.examples
    )
    moved = tuple(sorted(relabelled, key=lambda e: e.rank))
    with pytest.raises(LeakError, match=r"latent 7: image .* is not on the score side"):
        draw_sample(dataclasses.replace(evidence, examples=moved), CONFIG)


def test_an_image_that_the_explainer_was_shown_cannot_be_a_test() -> None:
    example = draw_sample(make_evidence(), CONFIG).positives[0]
    check_held_out([example], ["0" * 64])
    with pytest.raises(LeakError, match="was shown to the explainer"):
        check_held_out([example], [example.image_id])


def test_a_twin_of_an_image_that_the_explainer_was_shown_cannot_be_a_test() -> None:
    evidence = make_evidence()
    shown, tested = evidence.of("explain", "top")[0], evidence.of("score", "top")[0]
    check_held_out([tested], [shown.image_id], evidence.examples)
    group = next(name for k in count() if split_of(name := sha256_hex(b"%d" % k)) == "score")
    tested, twin = (dataclasses.replace(e, group=group) for e in (tested, shown))
    with pytest.raises(LeakError, match="or a near-duplicate of it, was shown to the explainer"):
        check_held_out([tested], [shown.image_id], [twin])


def test_a_group_decides_the_side_of_its_images() -> None:
    evidence = make_evidence()
    groups = {split_of(name): name for name in map(sha256_hex, (b"%d" % k for k in range(20)))}
    [example] = evidence.of("score", "top")[:1]
    check_held_out([dataclasses.replace(example, group=groups["score"])])
    with pytest.raises(LeakError, match="is not on the score side"):
        check_held_out([dataclasses.replace(example, group=groups["explain"])])


def test_the_choice_depends_on_the_latent_alone() -> None:
    evidence = make_evidence()
    other = dataclasses.replace(evidence, stats=dataclasses.replace(evidence.stats, latent=8))
    again = draw_sample(evidence, CONFIG)
    assert draw_sample(evidence, CONFIG) == again
    assert deal(again, 10, 7) == deal(again, 10, 7)
    assert draw_sample(other, CONFIG).positives != again.positives


# ------------------------------------------------------------------------------ grids


def sample_of(evidence: Evidence, n_positive: int, n_negative: int) -> Sample:
    positives = evidence.of("score", "top")[:n_positive]
    return Sample(positives, evidence.of("score", "silent")[:n_negative])


def test_twenty_and_twenty_make_four_grids_of_ten_that_use_every_image_once() -> None:
    sample = draw_sample(make_evidence(), CONFIG)
    grids = deal(sample, 10, 7)
    assert [len(grid) for grid in grids] == [10] * 4
    assert {e.image_id for grid in grids for e in grid} == {
        e.image_id for side in sample for e in side
    }


def test_the_share_of_positives_varies_from_grid_to_grid_by_at_most_a_fifth() -> None:
    sample = draw_sample(make_evidence(), CONFIG)
    counts = [
        sum(e.act > 0 for e in grid) for latent in range(50) for grid in deal(sample, 10, latent)
    ]
    assert set(counts) == {4, 5, 6}


def test_every_slot_holds_a_positive_equally_often_over_the_grids_of_a_latent() -> None:
    sample = draw_sample(make_evidence(), CONFIG)
    for latent in range(50):
        grids = deal(sample, 10, latent)
        per_slot = [sum(grid[slot].act > 0 for grid in grids) for slot in range(10)]
        assert per_slot == [2] * 10


def test_the_order_within_a_grid_differs_between_latents() -> None:
    sample = draw_sample(make_evidence(), CONFIG)
    truths = {tuple(e.act > 0 for e in deal(sample, 10, latent)[0]) for latent in range(20)}
    assert len(truths) > 15


EVIDENCE = make_evidence(n_active=40, n_silent=40)


@settings(deadline=None, max_examples=60)
@given(st.integers(5, 30), st.integers(5, 30), st.integers(4, 12), st.integers(0, 10_000))
def test_grids_of_any_sample_are_even_within_size_and_counterbalanced(
    n_positive: int, n_negative: int, n_tiles: int, latent: int
) -> None:
    sample = sample_of(EVIDENCE, n_positive, n_negative)
    grids = deal(sample, n_tiles, latent)
    sizes = [len(grid) for grid in grids]
    assert max(sizes) <= n_tiles
    assert max(sizes) - min(sizes) <= 1
    dealt = Counter(e.image_id for grid in grids for e in grid)
    assert dealt == Counter(e.image_id for side in sample for e in side)
    per_slot = [sum(grid[slot].act > 0 for grid in grids) for slot in range(min(sizes))]
    assert max(per_slot) - min(per_slot) <= 1


@pytest.mark.parametrize(("changes", "said"), [({"n_tiles": 13}, "13"), ({"n_positive": 4}, "4")])
def test_settings_that_cannot_work_are_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SampleConfig(**changes)


# ------------------------------------------------------------------------------ the null


def labels_of(names: str) -> list[Explanation]:
    return [explained(latent, label) for latent, label in enumerate(names)]


def test_a_shuffled_label_is_never_the_latents_own_and_every_label_is_dealt_once() -> None:
    own = labels_of("aaabbcdefg")
    for seed in range(30):
        dealt = shuffle_labels(own, dict.fromkeys(range(10), "live"), seed)
        assert [e.latent for e in dealt] == list(range(10))
        assert all(e.label != o.label for e, o in zip(dealt, own, strict=True))
        assert Counter(e.label for e in dealt) == Counter(o.label for o in own)


def test_labels_are_shuffled_within_a_status_and_by_the_seed() -> None:
    own = labels_of("abcdefgh")
    status: dict[int, Status] = {n: "live" if n < 4 else "dense" for n in range(8)}
    dealt = shuffle_labels(own, status)
    assert {e.label for e in dealt[:4]} == set("abcd")
    assert shuffle_labels(own, status) == dealt
    assert any(shuffle_labels(own, status, seed) != dealt for seed in range(1, 10))


def test_latents_for_which_no_other_label_is_left_are_left_out() -> None:
    dealt = shuffle_labels(labels_of("aaab"), dict.fromkeys(range(4), "live"))
    assert {(e.latent == 3, e.label) for e in dealt} == {(False, "b"), (True, "a")}
    assert shuffle_labels(labels_of("a"), {0: "live"}) == []
