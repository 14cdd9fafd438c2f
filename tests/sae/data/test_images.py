import io
import os
import random
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sae.data import images
from sae.data.images import BadImage, decode, read_image, upright_size
from sae.data.split import fraction

ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (30, 24)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def colour(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    assert image.mode == "RGB"
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel


def test_content_id_is_the_sha256_of_the_bytes() -> None:
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert images.content_id(b"abc") == known
    assert fraction(known, "split") == 0xBA7816BF / 2**32
    assert fraction(known, "holdout") == 0x8F01CFEA / 2**32


def test_fractions_are_uniform_and_the_two_uses_independent() -> None:
    ids = [images.content_id(str(i).encode()) for i in range(4000)]
    split = np.array([fraction(i, "split") for i in ids])
    holdout = np.array([fraction(i, "holdout") for i in ids])
    assert np.histogram(split, 4, (0, 1))[0].min() > 900
    assert abs(np.corrcoef(split, holdout)[0, 1]) < 0.05


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_pixels_come_back_as_they_were(kind: str) -> None:
    image = noise()
    shown = decode(encoded(image, kind, lossless=True))
    assert np.array_equal(np.asarray(shown), np.asarray(image))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.array([[0, 0x1234, 0x8000, 0xFFFF]], dtype=np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(grey))))[0, :, 0].tolist() == [0, 18, 128, 255]


def test_transparency_lies_on_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(10, 20, 30, 0), (10, 20, 30, 255), (0, 0, 0, 128)])
    assert np.asarray(decode(encoded(rgba))).tolist() == [[[255] * 3, [10, 20, 30], [127] * 3]]
    assert colour(decode(encoded(Image.new("LA", (2, 2), (0, 0))))) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "transparent", "hidden"),
    [("P", b"\x00\xff", 0), ("P", 1, 1), ("L", 7, 7), ("RGB", (9, 9, 9), (9, 9, 9)), ("1", 0, 0)],
)
def test_a_transparent_colour_is_white(mode: str, transparent: object, hidden: object) -> None:
    image = Image.new(mode, (4, 4), hidden)  # type: ignore[arg-type]
    if mode == "P":
        image.putpalette([200, 0, 0, 0, 200, 0])
    data = encoded(image, transparency=transparent)
    assert colour(decode(data)) == (255, 255, 255)


def test_sixteen_bit_transparent_grey_is_white() -> None:
    grey = Image.fromarray(np.array([[500, 501]], dtype=np.uint16))
    shown = np.asarray(decode(encoded(grey, transparency=500)))
    assert shown[0, :, 0].tolist() == [255, 501 // 256]


def test_one_bit_and_cmyk_become_rgb() -> None:
    assert colour(decode(encoded(Image.new("1", (4, 4), 1)))) == (255, 255, 255)
    red = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(np.array(colour(red, 8, 8)) - (255, 0, 0)).max() < 6


def test_of_a_large_jpeg_a_small_picture_is_made_that_shows_the_same() -> None:
    large = noise(size=(6, 4)).resize((1600, 1000), Image.Resampling.BICUBIC)
    whole, small = (decode(encoded(large, "JPEG"), longest=longest) for longest in (0, 224))
    assert whole.size == (1600, 1000)
    assert small.size == (400, 250)
    shrunk = np.asarray(whole.resize(small.size), int)
    assert np.abs(np.asarray(small, int) - shrunk).mean() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_is_not_larger_than_wanted_stays_as_it_is(kind: str) -> None:
    assert decode(encoded(noise(), kind), longest=20).size == (30, 24)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
    assert Image.open(io.BytesIO(data)).n_frames == 2  # type: ignore[attr-defined]
    assert colour(decode(data)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_exif_orientation_is_shown_upright(kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste("red", (0, 0, 16, 8))  # top left
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright.transpose(images._TURNS[undo]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(stored, kind, exif=exif)
    shown = decode(data)
    assert upright_size(Image.open(io.BytesIO(data))) == shown.size == upright.size
    assert shown.size == (32, 16)
    assert shown.info == {}
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(shown)), np.asarray(shown))
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(upright)).mean() < 12


def test_broken_exif_is_ignored() -> None:
    data = encoded(noise(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f broken")
    assert decode(data).size == (30, 24)
    exif = Image.Exif()
    exif[ORIENTATION] = 77
    assert decode(encoded(noise(), "JPEG", exif=exif)).size == (30, 24)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "DIB", "TIFF", "AVIF", "MPO"])
def test_other_formats_are_read_by_their_content(kind: str) -> None:
    image = Image.new("RGB", (24, 16), "white")
    image.paste((200, 0, 0), (0, 0, 12, 8))
    options = {"quality": 100} if kind in ("AVIF", "MPO") else {}
    shown = decode(encoded(image, kind, **options))
    assert shown.size == (24, 16)
    assert np.abs(np.array(colour(shown, 3, 3)) - (200, 0, 0)).max() < 9
    assert min(colour(shown, 20, 12)) > 247


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "AVIF", "MPO"])
def test_of_several_frames_the_first_is_shown(kind: str) -> None:
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    data = encoded(first, kind, save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).n_frames == 2  # type: ignore[attr-defined]
    assert np.abs(np.array(colour(decode(data), 8, 8)) - (255, 0, 0)).max() < 12


def test_tiffs_of_sixteen_bits_and_of_fractions() -> None:
    grey = Image.fromarray(np.array([[0, 0x1234, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert np.asarray(decode(encoded(grey, "TIFF")))[0, :, 0].tolist() == [0, 18, 128, 255]
    with pytest.raises(BadImage, match="pixels are fractions"):
        decode(encoded(Image.new("F", (4, 4), 0.5), "TIFF"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image; convert it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "an SVG drawing"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"hello", "not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image"),
    ],
)
def test_what_is_no_image_that_is_read_is_named(data: bytes, words: str) -> None:
    with pytest.raises(BadImage, match=words):
        decode(data)
    with pytest.raises(BadImage, match="a PPM image; convert it to PNG"):
        decode(encoded(noise(), "PPM"))


def test_the_cap_of_pixels_is_an_option_and_holds_for_every_format() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = encoded(noise(size=(40, 30)), kind)
        assert decode(data, max_pixels=1200).size == (40, 30)
        with pytest.raises(BadImage, match=r"40 x 30 pixels is above .*--max-pixels"):
            decode(data, max_pixels=1199)
    with pytest.raises(BadImage, match="179 megapixels"):  # whatever a store asks for
        decode(header_only_png(13_000, 13_900), max_pixels=10**12)


def test_a_tiff_cannot_hide_a_huge_tile() -> None:
    data = bytearray(encoded(noise(size=(64, 64)), "TIFF"))
    (n_tags,) = struct.unpack_from("<H", data, ifd := struct.unpack_from("<I", data, 4)[0])
    places = {
        struct.unpack_from("<H", data, at)[0]: at for at in range(ifd + 2, ifd + 12 * n_tags, 12)
    }
    for old, new in (
        (278, 322),
        (284, 323),
    ):  # rows per strip and planes: now a tile's width, height
        struct.pack_into("<HHII", data, places[old], new, 4, 1, 60_000)
    with pytest.raises(BadImage, match="64 x 64 pixels in tiles of 60000 x 60000 is above 50"):
        decode(bytes(data))


@pytest.mark.parametrize("size", [(13000, 13000), (9000, 9000), (8000, 6251), (70000, 70000)])
def test_too_many_pixels_are_refused_from_the_header_alone(size: tuple[int, int]) -> None:
    with pytest.raises(BadImage, match="50 megapixels"):
        decode(header_only_png(*size))


def test_a_thread_of_an_image_is_refused_as_clip_would_scale_it_up_to_gigabytes() -> None:
    with pytest.raises(BadImage, match="200 to 1"):
        decode(header_only_png(201, 1))
    assert decode(encoded(Image.new("RGB", (200, 1)))).size == (200, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 0.999])
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    data = encoded(noise(size=(120, 90)), kind)
    cut = min(int(len(data) * share), len(data) - 13)  # a PNG's last 12 bytes carry nothing
    with pytest.raises(BadImage):
        decode(data[:cut])


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(BadImage, match="empty"):
        decode(b"")


def test_pillow_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    for data in (header_only_png(9600, 9600), encoded(noise("P"), transparency=b"\x00\x80")):
        try:
            decode(data)
        except BadImage:
            continue
    assert [str(w.message) for w in recwarn] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encoded(noise("P"), transparency=b"\x00\x80")).mode == "RGB"


def seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100)
    frames = {"save_all": True, "append_images": [noise().rotate(90)]}
    return [
        encoded(noise(), "JPEG", exif=exif),
        encoded(noise(), "JPEG", progressive=True),
        encoded(noise("CMYK"), "JPEG"),
        encoded(noise(), "PNG", exif=exif),
        encoded(noise("P"), "PNG", transparency=b"\x00\x80"),
        encoded(deep, "PNG", transparency=500),
        encoded(noise(), "PNG", **frames),
        encoded(noise(), "WEBP", exif=exif),
        encoded(noise(), "WEBP", lossless=True),
        encoded(noise(), "WEBP", **frames),
        encoded(noise(), "GIF", **frames),
        encoded(noise("P"), "GIF", transparency=3),
        encoded(noise(), "BMP"),
        encoded(noise(), "TIFF", exif=exif),
        encoded(noise(), "TIFF", compression="tiff_lzw"),
        encoded(noise(), "TIFF", compression="jpeg"),
        encoded(deep, "TIFF", compression="tiff_adobe_deflate"),
        encoded(noise(), "AVIF", exif=exif),
        encoded(noise(), "MPO", **frames),
    ]


def with_right_checksums(png: bytearray) -> bytes:
    at = 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        if end + 4 > len(png):
            break
        png[end : end + 4] = zlib.crc32(png[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(png)


def mutated(n: int) -> Iterator[bytes]:
    """Bytes set, cut out, put in, cut off; half of the PNGs with their checksums mended."""
    rng = random.Random(0)
    originals = seeds()
    for _ in range(n):
        data = bytearray(rng.choice(originals))
        kind, at = rng.random(), rng.randrange(len(data))
        if kind < 0.1:
            data = data[:at]
        elif kind < 0.2:
            del data[at : at + rng.randrange(1, 30)]
        elif kind < 0.3:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            reach = min(len(data), rng.choice([160, len(data)]))
            for _ in range(rng.randrange(1, 8)):
                data[rng.randrange(reach)] = rng.choice([0, 1, 128, 255, rng.randrange(256)])
        yield with_right_checksums(data) if data[:4] == b"\x89PNG" and at % 2 else bytes(data)


def test_of_mutated_bytes_only_bad_image_escapes() -> None:
    reasons = []
    for data in mutated(4000):
        try:
            assert decode(data).mode == "RGB"
        except BadImage as error:
            reasons.append(error.reason)
    assert 800 < len(reasons) < 3800
    assert all(reason and "\n" not in reason for reason in reasons)


def test_what_is_no_file_is_refused_and_said_so(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    said = {}
    for name in ("folder.png", "broken.png", "pipe.png", "gone.png"):
        with pytest.raises(BadImage) as caught:
            read_image(tmp_path / name)
        said[name] = caught.value.reason
    assert "folder" in said["folder.png"]
    assert "broken link" in said["broken.png"]
    assert "pipe" in said["pipe.png"]
    assert "gone" in said["gone.png"]


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise()))
    assert read_image(path)[0] == images.content_id(path.read_bytes())
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    with pytest.raises(BadImage, match="above the cap of 100"):
        read_image(path)
