"""Push and pull: what goes up is clean and whole, what comes down is checked."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import huggingface_hub.constants as hf
import pytest
import torch
import yaml

from sae.core.errors import FAILURES, USAGE, UserError
from sae.data.store_format import StoreInfo
from sae.interchange.hub.model_card import CardSettings, base_model, model_card
from sae.interchange.hub.parcel import MOST_GALLERY_FILES, allowed, pack
from sae.interchange.hub.push_pull import download, pull, push
from sae.interchange.hub.scrub import masked, without_places
from sae.interchange.load import load
from sae.model.sae import SAE, SAEConfig, require_match
from tests.support.commands import sae
from tests.support.paths import ROOT
from tests.support.servers.fake_hub import TOKEN, FakeHub, Repo

REPO = "ann/sketch-sae"
CANARY = "/home/canary/secret stuff/vit"
GALLERY = ROOT / "interp" / "report" / "gallery"
FIGURES = {"format": 1, "store": "0" * 16, "fvu": 0.25, "l0": 3.0, "n_images": 40, "r2": None}
DOMAINS = {"sketch/fvu": 0.2, "photo/fvu": 0.3, "sketch/dead": 0.5}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub, with a token for it and a cache of its own."""
    monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(hf, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(hf, "HF_HUB_DISABLE_TELEMETRY", True)  # it would ask huggingface.co
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with FakeHub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A finished SAE folder whose config.json and eval.json name no place."""
    return saved(tmp_path / "sae")


def saved(folder: Path, seed: int = 0, **settings: object) -> Path:
    torch.manual_seed(seed)
    made = SAE(SAEConfig(d=6, n_latents=12, k=3, **settings))  # type: ignore[arg-type]
    for value in made.parameters():
        torch.nn.init.normal_(value)
    made.mean.normal_()
    made.scale.fill_(2.5)
    made.save(folder)
    (folder / "eval.json").write_text(json.dumps(FIGURES | DOMAINS, indent=1) + "\n")
    return folder


def a_run(folder: Path, model: Path, canary: str = "") -> Path:
    """A run's folder as `interp cards` leaves it."""
    shutil.copytree(model, folder / "sae")
    (folder / "labels.csv").write_text(
        f"latent_id,interpretation\n0,and/or a wheel {canary}\n1,\n2,black/white/red\n"
    )
    (folder / "gallery" / "data").mkdir(parents=True)
    for name in ("index.html", "app.css", "app.js", "list.js"):
        shutil.copyfile(GALLERY / name, folder / "gallery" / name)
    call = json.dumps({"meta": {"clip": f"local-dir:{canary}"}})
    (folder / "gallery" / "data" / "index.js").write_text(f"G.index({call});\n")
    (folder / "gallery" / "thumbs" / "ab").mkdir(parents=True)
    (folder / "gallery" / "thumbs" / "ab" / "ab12.webp").write_bytes(b"RIFF\0\xff\xfe")
    (folder / "calls.sqlite").write_bytes(b"what was paid")
    (folder / "gallery" / ".secret").write_text("no")
    return folder


# What goes up


def test_paths_are_cut_to_their_last_part_and_nothing_else() -> None:
    kept = "and/or, 1/2, https://host.org/home/page/x, a.replace(/data/g, ''), </b>, ~ // x, */ /"
    assert without_places(kept) == (kept, 0)
    cut = {
        "/home/ann/store": "store",
        '"local-dir:/home/ann/clips/vit"': '"local-dir:vit"',
        "/home/ann": "~",
        "/Users/Ann/x.png,": "x.png,",
        "at ../../home/ann/store/": "at store/",
        "file:///data/x/y.png": "y.png",
        "(/cluster/group/ann/z)": "(z)",
        r'"C:\\Users\\ann\\x.png"': '"x.png"',
        r"C:\Users\ann": "~",
        "D:/work/images": "images",
    }
    assert {text: without_places(text).text for text in cut} == cut


def test_a_home_folder_with_a_blank_is_cut_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/Ann Lee")
    assert "Lee" not in without_places('{"store": "/home/Ann Lee/store"}').text
    monkeypatch.setenv("HOME", "/home/jörg")
    assert "rg" not in without_places(json.dumps({"store": "/home/jörg/x"})).text


@pytest.mark.parametrize("canary", [CANARY, "/scratch/canary/x", r"C:\\Users\\canary\\x"])
def test_no_text_file_that_goes_up_names_a_place(hub: FakeHub, tmp_path: Path, canary: str) -> None:
    model = saved(tmp_path / "sae", clip=f"local-dir:{CANARY}", layer="3", source=CANARY)
    (model / "eval.json").write_text(json.dumps({**FIGURES, f"{CANARY}/fvu": 0.1, "x": CANARY}))
    run = a_run(tmp_path / "run", model, canary)
    assert sae("push", model, REPO, "--gallery", run) == 0
    files = hub.files(REPO)
    assert {"config.json", "eval.json", "README.md", "labels.csv"} < set(files)
    assert [name for name, data in files.items() if b"canary" in data] == []
    json.loads(files["config.json"])
    assert b"and/or a wheel" in files["labels.csv"]
    assert b"black/white/red" in files["labels.csv"]
    # The page's own files are code: they must come through unchanged.
    for name in ("index.html", "app.css", "app.js", "list.js"):
        assert files[f"gallery/{name}"] == (GALLERY / name).read_bytes()


def test_only_files_on_the_list_go_up(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    (model / "train.json").write_text("{}")
    (model / "notes.txt").write_text("mine")
    assert sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model)) == 0
    assert set(hub.files(REPO)) == {
        ".gitattributes",
        *("config.json", "sae.safetensors", "eval.json", "README.md", "labels.csv"),
        *(f"gallery/{name}" for name in ("index.html", "app.css", "app.js", "list.js")),
        *("gallery/data/index.js", "gallery/thumbs/ab/ab12.webp"),
    }


@pytest.mark.parametrize(
    "name",
    ["gallery/../x.js", "gallery/.git/x.js", "x/config.json", "gallery/x.exe", "/config.json"],
)
def test_other_names_are_not_on_the_list(name: str) -> None:
    assert not allowed(name)


def test_a_key_in_a_file_stops_the_push(
    hub: FakeHub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in (TOKEN, "sk-or-v1-" + "0123456789abcdef" * 2):
        run = a_run(tmp_path / key[-4:], model, key)
        assert sae("push", model, REPO, "--gallery", run) == USAGE
        error = capsys.readouterr().err
        assert "labels.csv, line 2" in error
        assert key not in error
    assert hub.asked == []


def test_labels_of_another_sae_are_refused(tmp_path: Path, model: Path) -> None:
    run = a_run(tmp_path / "run", saved(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="run of another SAE"):
        pack(model, run)


def test_a_gallery_that_is_too_large_stays_here_and_is_said(tmp_path: Path, model: Path) -> None:
    run = a_run(tmp_path / "run", model)
    for number in range(MOST_GALLERY_FILES):
        (run / "gallery" / "thumbs" / f"{number}.webp").touch()
    parcel = pack(model, run)
    assert [i.name for i in parcel.items] == [
        *("config.json", "sae.safetensors", "eval.json", "labels.csv")
    ]
    assert "the gallery stays here" in " ".join(parcel.notes)


def test_what_is_no_sae_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sae import"):
        pack(tmp_path)


# The card


def test_the_card_tells_what_the_files_tell(model: Path, tmp_path: Path) -> None:
    parcel = pack(model, a_run(tmp_path / "run", model))
    card = model_card(parcel, CardSettings(REPO, "mit", ("ann/sketches",)))
    _, front, body = card.split("---\n", 2)
    told = yaml.safe_load(front)
    assert set(told["tags"]) == {"sparse-autoencoder", "clip", "open_clip", "interpretability"}
    assert (told["license"], told["datasets"]) == ("mit", ["ann/sketches"])
    results = {r["dataset"]["name"]: r["metrics"] for r in told["model-index"][0]["results"]}
    overall = {metric["type"]: metric["value"] for metric in results["held-out images"]}
    assert overall == {"fvu": 0.25, "l0": 3.0}
    assert results["held-out images (photo)"][0]["value"] == 0.3
    assert "| 0.25 | 0.2 | 0.3 |" in body
    assert "`scale` = 2.5" in body
    assert f"sae pull {REPO} --out DIR" in body
    assert "names 2 of the 12 latents" in body
    assert "mit" in body.split("## Licence")[1]


def test_a_card_without_figures_says_so(tmp_path: Path, model: Path) -> None:
    (model / "eval.json").unlink()
    card = model_card(pack(model), CardSettings(REPO))
    assert "model-index" not in card
    assert "Not measured" in card
    assert "None was given" in card


@pytest.mark.parametrize(
    ("clip", "known"),
    [
        ("ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai"),
        ("ViT-B-32/laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("hf-hub:org/name", "org/name"),
        ("ViT-B-32/random", ""),
        ("local-dir:/x/y", ""),
        ("tiny", ""),
        ("somebody's own", ""),
        ("", ""),
    ],
)
def test_the_base_model_is_the_clips_id_on_the_hub(clip: str, known: str) -> None:
    assert base_model(clip) == known


# There and back


def test_what_is_pushed_is_pulled_with_the_same_bytes(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run", model)
    assert sae("push", model, REPO, "--gallery", run, "--license", "mit") == 0
    assert sae("pull", REPO, "--out", tmp_path / "pulled") == 0
    for name in ("config.json", "sae.safetensors", "eval.json"):
        assert (tmp_path / "pulled" / name).read_bytes() == (model / name).read_bytes()
    for name in ("labels.csv", "gallery/index.html", "gallery/thumbs/ab/ab12.webp"):
        assert (tmp_path / "pulled" / name).read_bytes() == (run / name).read_bytes()
    x = torch.randn(5, 6)
    ours, theirs = load(model)(x), load(tmp_path / "pulled")(x)
    assert torch.equal(ours.x_hat, theirs.x_hat)
    assert not list(tmp_path.glob("pulled.*"))


def test_an_sae_on_a_local_clip_still_fits_its_store_when_it_comes_back(tmp_path: Path) -> None:
    published = pack(saved(tmp_path / "sae", clip=f"local-dir:{CANARY}")).config
    assert published.clip == "local-dir:vit"
    require_match(published, a_store("local-dir:/elsewhere/vit"))
    for other in ("local-dir:/elsewhere/other", "ViT-B-32/openai"):
        with pytest.raises(UserError, match="trained on clip"):
            require_match(published, a_store(other))


def a_store(clip: str) -> StoreInfo:
    return cast(StoreInfo, SimpleNamespace(d=6, clip=clip, layer=""))


def test_a_push_is_one_commit(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model))
    assert len([line for line in hub.asked if "/commit/" in line]) == 1
    assert len(hub.repos[REPO].commits) == 2  # the first is the hub's own


def test_a_new_sae_takes_the_labels_of_the_old_one_away(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model))
    assert sae("push", model, REPO) == 0  # the same SAE: its labels stay
    assert "labels.csv" in hub.files(REPO)
    hub.repos[REPO].commit("main", {**hub.files(REPO), "mine.txt": b"kept"})
    assert sae("push", saved(tmp_path / "other", seed=1), REPO) == 0
    assert set(hub.files(REPO)) == {
        *(".gitattributes", "mine.txt", "config.json", "sae.safetensors", "eval.json"),
        "README.md",
    }


def test_a_branch_is_made_and_pulled_by_name(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    assert sae("push", model, REPO, "--revision", "v2") == 0
    assert "sae.safetensors" not in hub.files(REPO)
    assert sae("pull", REPO, "--out", tmp_path / "pulled", "--revision", "v2") == 0
    assert sae("push", model, REPO, "--revision", "v2", "--license", "mit") == 0
    assert b"license: mit" in hub.files(REPO, "v2")["README.md"]


def test_private_makes_it_private_and_never_sends_to_a_public_one(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sae("push", model, REPO, "--private") == 0
    assert hub.repos[REPO].private
    assert sae("push", model, REPO, "--private") == 0
    hub.add("ann/public", {})
    assert sae("push", model, "ann/public", "--private") == USAGE
    assert "public" in capsys.readouterr().err
    assert hub.files("ann/public") == {}


def test_a_dry_run_shows_files_and_card_and_sends_nothing(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert sae("push", model, REPO, "--dry-run") == 0
    said = capsys.readouterr().out
    assert hub.asked == []
    assert "sae.safetensors" in said
    assert "sparse-autoencoder" in said
    assert "nothing was sent" in said


def test_what_the_hub_says_of_the_card_is_passed_on(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.warning = "no such licence"
    assert sae("push", model, REPO, "--license", "mti") == 0
    assert "no such licence" in capsys.readouterr().err


# What comes down


@pytest.mark.parametrize("name", ["config.json", "sae.safetensors", "labels.csv"])
def test_a_file_that_arrives_damaged_is_fetched_again_and_then_refused(
    hub: FakeHub, model: Path, tmp_path: Path, name: str
) -> None:
    sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model))
    hub.corrupt, hub.n_corrupt = name, 1
    pull(REPO, tmp_path / "pulled")
    shutil.rmtree(tmp_path / "hub-cache")
    hub.n_corrupt = 1 << 30
    with pytest.raises(UserError, match=f"{name} of {REPO} arrived damaged") as refused:
        pull(REPO, tmp_path / "again")
    assert refused.value.exit_code == FAILURES
    assert not list(tmp_path.glob("again*"))


def test_an_unknown_format_is_refused_before_the_weights_are_fetched(
    hub: FakeHub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae("push", model, REPO)
    files = dict(hub.files(REPO))
    files["config.json"] = files["config.json"].replace(b'"format": 1', b'"format": 7')
    hub.add(REPO, files)
    assert sae("pull", REPO, "--out", tmp_path / "pulled") == USAGE
    assert "config.json has format 7; this version reads format 1" in capsys.readouterr().err
    assert not any("sae.safetensors" in line for line in hub.asked if "resolve" in line)
    assert not list(tmp_path.glob("pulled*"))


def test_sizes_that_the_weights_cannot_have_are_refused(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    sae("push", model, REPO)
    files = dict(hub.files(REPO))
    files["config.json"] = files["config.json"].replace(b'"n_latents": 12', b'"n_latents": 1000000')
    hub.add(REPO, files)
    with pytest.raises(UserError, match="1000000 latents of width 6, but"):
        pull(REPO, tmp_path / "pulled")


def test_weights_that_do_not_load_never_appear(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    sae("push", model, REPO)
    hub.add(REPO, {**hub.files(REPO), "sae.safetensors": b"\x08" + bytes(700)})
    with pytest.raises(UserError, match="damaged"):
        pull(REPO, tmp_path / "pulled")
    assert not list(tmp_path.glob("pulled*"))


def test_names_that_lead_elsewhere_are_not_fetched(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    sae("push", model, REPO)
    evil = {"gallery/../../evil.js": b"x", "gallery/a/../../../evil.js": b"x", "evil.py": b"x"}
    hub.add(REPO, {**hub.files(REPO), **evil})
    pull(REPO, tmp_path / "in" / "pulled")
    assert not list(tmp_path.rglob("evil*"))


def test_a_folder_is_replaced_only_when_asked_and_ours(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    sae("push", model, REPO)
    old = saved(tmp_path / "old", seed=1)
    before = (old / "sae.safetensors").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        pull(REPO, old)
    assert (old / "sae.safetensors").read_bytes() == before
    pull(REPO, old, overwrite=True)
    assert (old / "sae.safetensors").read_bytes() == (model / "sae.safetensors").read_bytes()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="no SAE of ours"):
        pull(REPO, mine, overwrite=True)
    assert (mine / "thesis.txt").exists()


def test_offline_uses_what_was_downloaded_before(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sae("push", model, REPO)
    pull(REPO, tmp_path / "first")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    pull(REPO, tmp_path / "second")
    assert (tmp_path / "second" / "README.md").exists()
    capsys.readouterr()
    assert sae("pull", "ann/other", "--out", tmp_path / "third") == USAGE
    assert sae("push", model, REPO) == USAGE
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("HF_HUB_OFFLINE is set" in line for line in errors)
    assert hub.asked == []


# What goes wrong


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, USAGE, "does not take the token (401)"),
        (403, USAGE, "403"),
        (404, USAGE, "404"),
        (429, FAILURES, "429"),
        (400, USAGE, "not with Bearer ***"),
        (500, FAILURES, "not with Bearer ***"),
    ],
)
def test_each_refusal_is_one_line_without_the_token(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int,
    code: int,
    said: str,
) -> None:
    hub.status, hub.echo = status, True
    for command in (("push", model, REPO), ("pull", REPO, "--out", tmp_path / "out")):
        assert sae(*command) == code
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert TOKEN not in error


def test_without_a_token_the_line_says_how_to_log_in(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    hub.repos[REPO] = Repo(private=True)
    assert sae("push", model, "ann/new") == USAGE
    assert sae("pull", REPO, "--out", tmp_path / "out") == USAGE
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("HF_TOKEN" in line for line in errors)


def test_a_hub_that_is_down_is_one_line(
    hub: FakeHub,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    for command in (("push", model, REPO), ("pull", REPO, "--out", tmp_path / "out")):
        assert sae(*command) == FAILURES
        error = capsys.readouterr().err
        assert "cannot reach the hub" in error
        assert error.count("\n") == 1


def test_a_commit_of_somebody_else_is_not_overwritten(
    hub: FakeHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae("push", model, REPO)
    hub.rival = True
    assert sae("push", model, REPO, "--license", "mit") == FAILURES
    assert "changed meanwhile" in capsys.readouterr().err
    assert "rival.txt" in hub.files(REPO)
    assert sae("push", model, REPO, "--license", "mit") == 0


@pytest.mark.parametrize("repo", ["name", "a/b/c", "../x", "a/..", "a/b c", "https://x/y"])
def test_what_is_no_id_is_refused_before_anything_is_sent(
    hub: FakeHub, model: Path, repo: str
) -> None:
    with pytest.raises(UserError, match="owner/name"):
        push(pack(model), "", repo)
    assert sae("push", model, repo, "--dry-run") == USAGE
    assert hub.asked == []


def test_keys_are_masked_in_what_is_printed() -> None:
    assert masked("Bearer secret123 and hf_" + "a" * 30, "secret123", None) == "Bearer *** and ***"


# Other labs' repositories


def test_a_foreign_repository_is_fetched_and_read(hub: FakeHub, tmp_path: Path) -> None:
    """Of the kinds that an SAE is made of; the rest is left there."""
    files = foreign(tmp_path)
    hub.add("lab/saes", {**files, "evil.py": b"import os", "big.bin": b"x"})
    here = download("lab/saes")
    assert {p.name for p in here.rglob("*") if p.is_file()} == {"cfg.json", "sae.safetensors"}
    assert load(here / "layer.3").n_latents == 8
    assert sae("import", "hf:lab/saes/layer.3", "--out", tmp_path / "imported") == 0
    assert load(tmp_path / "imported").n_latents == 8


def test_python_loads_a_repository_by_its_name(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    """Ours and others' alike; a `Path` is a path alone, and asks nobody."""
    push(pack(model), "a card\n", REPO)
    assert torch.equal(load(REPO).W_dec, load(model).W_dec)
    hub.add("lab/saes", foreign(tmp_path))
    assert load("hf:lab/saes/layer.3").n_latents == 8
    n_asked = len(hub.asked)
    with pytest.raises(UserError, match="ann/sketch-sae is not a folder"):
        load(Path(REPO))
    assert len(hub.asked) == n_asked


def test_foreign_names_that_lead_elsewhere_are_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    evil = {"../evil.json": b"{}", "a/../../../evil.json": b"{}", "/evil.json": b"{}"}
    hub.add("lab/saes", {**foreign(tmp_path), **evil, "a\\..\\evil.json": b"{}"})
    assert (download("lab/saes") / "layer.3" / "cfg.json").exists()
    assert not list(tmp_path.rglob("*evil*"))


def test_one_folder_of_a_foreign_repository_is_fetched_alone(hub: FakeHub, tmp_path: Path) -> None:
    files = foreign(tmp_path)
    hub.add("lab/saes", {**files, "layer.10/cfg.json": b"{}", "layer.33/cfg.json": b"{}"})
    here = download("lab/saes", folder="layer.3")
    assert {p.parent.name for p in here.rglob("*.json")} == {"layer.3"}
    with pytest.raises(UserError, match="no file that could be an SAE"):
        download("lab/saes", folder="layer.4")


def test_pulling_a_foreign_repository_names_the_command_that_reads_it(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.add("lab/saes", foreign(tmp_path))
    with pytest.raises(UserError, match=r"sae import hf:lab/saes --out DIR"):
        pull("lab/saes", tmp_path / "out")


def foreign(tmp_path: Path) -> dict[str, bytes]:
    """An SAE in sparsify's layout, in a folder of its repository."""
    from sae.interchange.formats import sparsify

    model = SAE(SAEConfig(d=4, n_latents=8, k=2))
    for value in model.parameters():
        torch.nn.init.normal_(value)
    folder = sparsify.write(model, tmp_path / "sparsify")
    return {f"layer.3/{path.name}": path.read_bytes() for path in folder.iterdir()}
