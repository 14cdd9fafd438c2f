"""`sae plan`: bytes and steps are those of a real run, the road follows from the figures."""

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sae.cli.live import RingConfig
from sae.clip.ahead import Shape, shape_ahead
from sae.clip.config import SourceConfig
from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.data.store_format import Vectors
from sae.planning.config import read_count
from sae.planning.report import Planned
from sae.planning.roads import ON_THE_FLY, STORE, choose, find_roads
from sae.planning.sizes import Sizes, size_up
from sae.planning.speeds import Speeds, name_timed
from sae.training.config import TrainConfig
from sae.training.feed.batches import BUFFER_TOKENS
from sae.training.train import train
from tests.support.commands import Walk, sae

IMAGENET = (1_280_000, Shape(768, 196, (14, 14)), "float16")
QUICK = Speeds(
    device="a GPU",
    is_cpu=False,
    n_cores=8,
    clip=2_000,
    decode=400,
    look=4_000,
    steps=400,
    steps_alone=100,
    encode=2e6,
    write=5e8,
    read=1e9,
    free=10**13,
    held=4 << 30,
)


def weigh(folder: Path) -> int:
    files = folder.glob("*.safetensors")
    return sum(x.nbytes for file in files for x in load_file(file).values())


def imagenet(**settings: int) -> Sizes:
    return size_up(*IMAGENET, TrainConfig(n_latents=24_576, **settings))


def cheapest(sizes: Sizes, n: int = 1, **speeds: float) -> str:
    best = choose(find_roads(sizes, dataclasses.replace(QUICK, **speeds), n))
    return best.name if best else "none"


def test_bytes_and_steps_are_those_of_a_real_store_and_training(walk: Walk, tmp_path: Path):
    store, figures = tmp_path / "store", tmp_path / "plan.json"
    shape = ("--clip", "tiny", "--layer", 1, "--tokens", "patch")
    trained = ("--n-latents", 48, "--k", 3, "--epochs", 1, "--batch-size", 300, "--holdout", 0)
    images = f"photo={walk.world / 'photo'}"
    assert sae("embed", images, *shape, "--out", store, "--workers", 0) == 0
    n = EmbeddingStore.open(store).info.n_images
    words = ("--images", n, *shape, *trained, "--seconds", 0.1, "--out", tmp_path)
    assert sae("plan", *words, "--json", figures) == 0
    found = json.loads(figures.read_text())
    assert found["store/bytes"] == weigh(store)
    settings = TrainConfig(n_latents=48, k=3, epochs=1, batch_size=300, holdout=0)
    made = train(EmbeddingStore.open(store), tmp_path / "sae", settings)
    assert found["training/steps"] == made.last.step == -(-n * 64 // 300)
    assert found["sae/bytes"] == weigh(tmp_path / "sae")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "sae", "store"]


def test_a_budget_that_the_trainer_chooses_is_known_whatever_is_held_out(walk: Walk):
    config = json.loads((walk.store / "store.json").read_text())
    shape = shape_ahead(SourceConfig())
    assert shape is not None
    sizes = size_up(config["n_images"], shape, config["dtype"], TrainConfig(n_tokens=20_000))
    assert sizes.n_steps == -(-20_000 // sizes.training.batch_size)
    assert sizes.store_bytes == weigh(walk.store)


def test_imagenets_patches_go_to_a_store_where_there_is_room_and_on_the_fly_elsewhere():
    sizes = imagenet()
    assert sizes.store_bytes == 1_280_000 * 196 * 768 * 2
    assert cheapest(sizes) == STORE
    assert cheapest(sizes, free=3 * 10**11) == ON_THE_FLY
    assert cheapest(sizes, free=10**8) == "none"


def test_the_road_is_the_sooner_one():
    once = imagenet(epochs=1)
    assert cheapest(once) == STORE
    # A slow disk: writing and reading it takes longer than CLIP does a second time.
    assert cheapest(once, write=1e8, read=1e8) == ON_THE_FLY
    assert cheapest(imagenet(epochs=10), write=1e8, read=3e8) == STORE
    # More devices share what is on a store; a run on the fly takes one of them.
    assert cheapest(once, n=8, write=1e8, read=2e8) == STORE


def test_a_store_without_room_is_said_to_be_the_sooner_way():
    sizes = imagenet()
    vectors = Vectors("ViT-B-16/random", "0" * 16, "11", "patch", "float16", 768, 196, [14, 14])
    speeds = dataclasses.replace(QUICK, free=10**11)
    planned = Planned("ViT-B-16", vectors, TrainConfig(n_latents=24_576), sizes, speeds, 8)
    *_, verdict = planned.lines(Path("work"))
    assert verdict.startswith("cheapest: on the fly, for there is no room for the other, which ")
    assert planned.figures()["a_store/has_room"] is False
    [command] = planned.following()
    assert "--clip ViT-B-16/TAG --layer 11 --tokens patch" in command
    assert command.endswith("--n-latents 24576 --out SAE")
    roomy = dataclasses.replace(planned, speeds=QUICK)
    assert [line.split(" -m -- ")[1].split()[:2] for line in roomy.following()] == [
        ["sae", "embed"],
        ["sae", "train"],
    ]


def test_hours_follow_from_the_speeds():
    sizes = imagenet(epochs=1)
    store, live = find_roads(sizes, QUICK, 8)
    embed, training, _ = store.steps
    assert embed.seconds == pytest.approx(1_280_000 / (8 * 2_000) + sizes.store_bytes / 5e8)
    assert training.seconds == pytest.approx(sizes.n_steps / 400)
    first, _ = live.steps
    looked, sampled = 1_280_000 / 32_000, 1_024 / 2_000
    assert first.seconds == pytest.approx(
        looked + sampled + 1_152_000 / 2_000 + sizes.n_steps / 100
    )
    assert store.device_seconds == pytest.approx(8 * store.seconds)
    assert live.device_seconds == pytest.approx(live.seconds)


def test_a_cpu_decodes_and_computes_in_turns_and_a_gpu_at_once():
    assert QUICK.embed == 2_000
    assert dataclasses.replace(QUICK, decode=100).embed == 800
    slow = dataclasses.replace(QUICK, is_cpu=True, clip=30, decode=30, n_cores=2)
    assert slow.embed == pytest.approx(20)


def test_what_is_held_in_memory_is_read_once():
    slow = dataclasses.replace(QUICK, read=1e6)
    small = size_up(10_000, Shape(768, 1, None), "float16", TrainConfig())
    assert small.n_passes > 10
    [_, training, _] = find_roads(small, slow, 1)[0].steps
    assert training.seconds == pytest.approx(small.pass_bytes / 1e6)
    [_, training, _] = find_roads(small, dataclasses.replace(slow, held=0), 1)[0].steps
    assert training.seconds == pytest.approx(small.n_passes * small.pass_bytes / 1e6)


def test_the_buffer_is_that_of_a_training_on_the_fly():
    assert RingConfig().buffer_tokens == BUFFER_TOKENS


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.28M", 1_280_000),
        ("50k", 50_000),
        ("2e6", 2_000_000),
        ("1,281,167", 1_281_167),
        ("1_000", 1_000),
        ("5B", 5_000_000_000),
        (70, 70),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str | int, number: int):
    assert read_count(text) == number


@pytest.mark.parametrize(
    "text", ["", "many", "-5", "0", "1.5", "nan", "1.28X", "1e99", "9" * 50, "1,2k,"]
)
def test_what_is_no_number_is_refused(text: str):
    with pytest.raises(UserError):
        read_count(text)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--images", "many"), "'many' is not a number"),
        (("--images", "9", "--clip", "ViT-Q-99"), "no CLIP model 'ViT-Q-99'"),
        (("--images", "9", "--tokens", "patches"), "patches"),
        (("--images", "9", "--layer", "77"), "no layer 77"),
        (("--images", "9", "--dtype", "int8"), "--dtype 'int8'"),
        (("--images", "9", "--epochs", "1", "--n-tokens", "1k"), "n_tokens"),
        (("--images", "1", "--holdout", "0.9"), "leave none to train on"),
        (("--images", "9", "--gpus", "300"), "cannot share batches"),
        (("--images", "9", "--n-latents", "1e9"), "GB of memory"),
        (("--images", "9", "--layer", "projected", "--tokens", "patch"), "needs a block"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert sae("plan", *words, "--out", tmp_path, "--seconds", 0.1) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sae: ")]
    assert len(error) == 1
    assert told in error[0]


def test_models_of_the_list_are_timed_without_their_weights():
    assert name_timed("ViT-B-16") == "ViT-B-16/random"
    assert name_timed("ViT-B/16") == "ViT-B-16/random"
    assert name_timed("ViT-B-16/openai") == "ViT-B-16/random"
    assert name_timed("tiny") == "tiny"
    with pytest.raises(UserError, match="no tag 'openaj'"):
        name_timed("ViT-B-16/openaj")
