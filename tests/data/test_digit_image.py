"""Pictures of digits are converted to the format of MNIST."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mnist_accel.data.digit_image import read_digit_image, read_digit_images
from mnist_accel.data.digit_image.normalize import to_mnist
from mnist_accel.errors import DataError


@pytest.fixture(scope="module")
def digits(mnist):
    """One test image per digit (10, 28, 28)."""
    return mnist.x_test[[np.flatnonzero(mnist.t_test == digit)[0] for digit in range(10)]]


def _enlarge(image, factor, method=Image.Resampling.BICUBIC):
    side = 28 * factor
    return np.asarray(Image.fromarray(image).resize((side, side), method)) / 255


def _crop(image):
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _on_canvas(ink, *, height, width, seed):
    """Place ink at a random position on an empty canvas (height, width)."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((height, width))
    top = rng.integers(0, height - ink.shape[0] + 1)
    left = rng.integers(0, width - ink.shape[1] + 1)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return canvas


def _paint(ink, *, paper, pen):
    """Blend two RGB colors by ink (H, W)."""
    return np.array(paper) * (1 - ink[..., None]) + np.array(pen) * ink[..., None]


def _save(path, fractions, **options):
    pixels = np.rint(np.clip(fractions, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def _similarity(read, original):
    """Return the largest correlation of two images over shifts by up to one pixel."""
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return max(
        np.corrcoef(np.roll(read, shift, (0, 1)).ravel(), original.ravel())[0, 1]
        for shift in shifts
    )


def _check_all_similar(tmp_path, digits, picture_of, *, at_least, suffix=".png"):
    similarities = []
    for index, original in enumerate(digits):
        path = _save(tmp_path / f"digit{suffix}", picture_of(original, index))
        read = read_digit_image(path)
        assert read.shape == (28, 28)
        assert read.dtype == np.float32
        assert read.max() == 1
        similarities.append(_similarity(read, original))
    assert np.mean(similarities) >= at_least
    # Other images of the same digit reach about 0.4; blank or inverted images are below 0.
    assert np.min(similarities) >= 0.85


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(
    ("factor", "method"),
    [
        (1, Image.Resampling.NEAREST),
        (7, Image.Resampling.NEAREST),
        (3, Image.Resampling.BICUBIC),
        (12, Image.Resampling.BICUBIC),
    ],
)
def test_enlarged_mnist_digits_are_restored(tmp_path, digits, factor, method, inverted):
    def picture_of(image, index):
        ink = _enlarge(image, factor, method)
        return 1 - ink if inverted else ink

    _check_all_similar(tmp_path, digits, picture_of, at_least=0.96)


@pytest.mark.parametrize(
    ("paper", "pen"),
    [
        ((1.0, 1.0, 1.0), (0.1, 0.1, 0.6)),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 0.3)),
        ((0.95, 0.9, 0.8), (0.7, 0.65, 0.6)),
        ((0.1, 0.3, 0.2), (0.9, 0.9, 0.85)),
        ((0.2, 0.6, 0.2), (0.9, 0.25, 0.2)),  # equal brightness
    ],
)
def test_paper_and_pen_may_have_any_two_colors(tmp_path, digits, paper, pen):
    def picture_of(image, index):
        ink = _on_canvas(_enlarge(image, 6), height=240, width=300, seed=index)
        return _paint(ink, paper=paper, pen=pen)

    _check_all_similar(tmp_path, digits, picture_of, at_least=0.96)


@pytest.mark.parametrize("pen", [(0.1, 0.1, 0.15), (0.65, 0.65, 0.65)])
def test_uneven_light_and_noise_are_removed(tmp_path, digits, pen):
    def picture_of(image, index):
        rng = np.random.default_rng(index)
        ink = _on_canvas(_enlarge(image, 9), height=400, width=500, seed=index)
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1:1:400j, -1:1:500j]
        light = 0.75 + 0.17 * (np.cos(angle) * x + np.sin(angle) * y)
        picture = _paint(ink, paper=(0.95, 0.95, 0.92), pen=pen) * light[..., None]
        return picture + 0.02 * rng.normal(size=picture.shape)

    _check_all_similar(tmp_path, digits, picture_of, at_least=0.94, suffix=".jpg")


def test_edge_of_a_shadow_is_not_ink(tmp_path, digits):
    def picture_of(image, index):
        ink = _on_canvas(_enlarge(image, 8), height=400, width=250, seed=index)
        lit = np.ones((400, 500))
        lit[:, 300:] = 0.6
        picture = 0.95 - 0.8 * np.pad(ink, ((0, 0), (0, 250)))
        return picture * lit

    _check_all_similar(tmp_path, digits, picture_of, at_least=0.95)


@pytest.mark.parametrize("corner", ["top left", "bottom right"])
def test_digit_may_touch_the_border(tmp_path, digits, corner):
    def picture_of(image, index):
        cropped = _crop(np.rint(_enlarge(image, 8) * 255).astype(np.uint8)) / 255
        after = corner == "top left"
        margins = [(0, 90) if after else (90, 0)] * 2
        return 1 - np.pad(cropped, margins)

    _check_all_similar(tmp_path, digits, picture_of, at_least=0.96)


@pytest.mark.parametrize("paper", ["black", "white"])
def test_no_digit_of_a_row_without_a_margin_is_left_out(tmp_path, mnist, paper):
    """The first and last digits are so near the border that it may cut their paper off."""
    refused = 0
    for first in range(0, 40, 4):
        row = np.concatenate(list(mnist.x_test[first : first + 4]), axis=1)
        image = Image.fromarray(row if paper == "black" else 255 - row)
        image.resize((4 * row.shape[1], 4 * row.shape[0]), Image.Resampling.BICUBIC).save(
            tmp_path / "row.png"
        )
        try:
            found = read_digit_images(tmp_path / "row.png")
        except DataError:
            refused += 1
            continue
        assert len(found) == 4, first
        for read, original in zip(found, mnist.x_test[first:], strict=False):
            assert _similarity(read, original) > 0.8, first
    assert refused <= 1  # one of the 40 digits is unlike a digit


def test_isolated_dark_pixels_are_removed(tmp_path, digits):
    def picture_of(image, index):
        rng = np.random.default_rng(index)
        picture = 1 - np.pad(_enlarge(image, 8), 60)
        picture[rng.integers(0, 340, 12), rng.integers(0, 340, 12)] = 0
        return picture

    _check_all_similar(tmp_path, digits, picture_of, at_least=0.96)


def _draw_seven(size, *, width, offset=(0, 0), mode="L", paper=235, pen=30):
    image = Image.new(mode, size, paper)
    x, y = offset
    strokes = [(x, y), (x + 500, y), (x + 200, y + 900)]
    ImageDraw.Draw(image).line(strokes, fill=pen, width=width, joint="curve")
    return image


@pytest.mark.parametrize("width", [3, 8, 30])
def test_thin_strokes_in_a_large_photo_remain_visible(tmp_path, width):
    path = tmp_path / "seven.jpg"
    _draw_seven((4000, 3000), width=width, offset=(2500, 900)).save(path, quality=90)
    read = read_digit_image(path)
    bold = tmp_path / "bold.png"
    _draw_seven((1200, 1200), width=110, offset=(300, 100)).save(bold)
    assert _similarity(read, read_digit_image(bold)) > 0.9
    assert 50 <= np.count_nonzero(read > 0.4) <= 110  # as in sevens of MNIST


def test_digit_is_scaled_to_the_box_and_its_center_of_mass_is_centered(tmp_path, digits):
    for original in digits:
        read = read_digit_image(_save(tmp_path / "a.png", 1 - _enlarge(original, 11)))
        rows, columns = np.nonzero(read)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        weights = read / read.sum()
        center = np.array(
            [np.arange(28) @ weights.sum(axis=1), weights.sum(axis=0) @ np.arange(28)]
        )
        np.testing.assert_allclose(center, 14, atol=0.51)


def test_centering_does_not_clip_asymmetric_ink():
    image = Image.new("L", (300, 300), 0)
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((50, 50, 140, 250), fill=255)
    drawing.line((140, 245, 280, 245), fill=255, width=9)
    columns = np.flatnonzero(to_mnist(np.asarray(image, np.float32) / 255).any(axis=0))
    assert columns[-1] - columns[0] + 1 == 20


@pytest.fixture(scope="module")
def drawing():
    return _draw_seven((800, 1100), width=90, offset=(150, 100), paper=255, pen=0)


@pytest.fixture(scope="module")
def expected(drawing, tmp_path_factory):
    path = tmp_path_factory.mktemp("drawing") / "a.png"
    drawing.save(path)
    return read_digit_image(path)


def _check(path, expected, *, at_least=0.99):
    assert _similarity(read_digit_image(path), expected) >= at_least


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_png_of_each_mode_is_read(drawing, expected, tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.asarray(drawing).astype(np.uint16) * 257)
    else:
        image = drawing.convert(mode)
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == mode
    _check(tmp_path / "a.png", expected)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "webp"])
def test_other_formats_are_read(drawing, expected, tmp_path, suffix):
    drawing.convert("RGB").save(tmp_path / f"a.{suffix}")
    _check(tmp_path / f"a.{suffix}", expected)


def test_cmyk_jpeg_is_read(drawing, expected, tmp_path):
    drawing.convert("CMYK").save(tmp_path / "a.jpg")
    _check(tmp_path / "a.jpg", expected)


@pytest.mark.parametrize("color", [0, 255])
def test_ink_on_a_transparent_layer_is_found(drawing, expected, tmp_path, color):
    layer = np.full((*drawing.size[::-1], 4), color, dtype=np.uint8)
    layer[..., 3] = 255 - np.asarray(drawing)
    Image.fromarray(layer).save(tmp_path / "a.png")
    _check(tmp_path / "a.png", expected)


def test_transparent_corners_are_not_ink(drawing, expected, tmp_path):
    image = drawing.convert("RGBA")
    mask = Image.new("L", image.size, 0)
    box = (0, 0, image.width, image.height)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=120, fill=255)
    image.putalpha(mask)
    image.save(tmp_path / "a.png")
    _check(tmp_path / "a.png", expected)


def test_transparent_palette_entry_is_background(drawing, expected, tmp_path):
    drawing.convert("P").save(tmp_path / "a.gif", transparency=255)
    _check(tmp_path / "a.gif", expected)


def test_orientation_from_exif_is_applied(drawing, expected, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise
    drawing.rotate(90, expand=True).save(tmp_path / "a.jpg", exif=exif)
    _check(tmp_path / "a.jpg", expected)


def _png_header_of(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _rejection(path):
    with pytest.raises(DataError) as caught:
        read_digit_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_files_that_are_not_images_are_rejected(tmp_path):
    path = tmp_path / "a.png"
    assert "does not exist" in _rejection(path)
    path.write_bytes(b"")
    assert "is not an image in one of the formats PNG" in _rejection(path)
    path.write_text("<svg/>")
    assert "is not an image" in _rejection(path)
    Image.new("L", (9, 9)).save(tmp_path / "a.tiff")
    assert "is not an image" in _rejection(tmp_path / "a.tiff")
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "convert it, or take a screenshot of it" in _rejection(path)
    assert "directory" in _rejection(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif"])
def test_truncated_image_is_rejected(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    _draw_seven((800, 1100), width=90, offset=(150, 100)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cannot read" in _rejection(path)


@pytest.mark.parametrize("size", [(9_000, 9_000), (12_000, 12_000), (60_000, 60_000)])
def test_decompression_bomb_is_rejected_before_it_is_unpacked(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(_png_header_of(*size))
    assert "more than 80 million pixels" in _rejection(path)


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 1), (300, 200)])
@pytest.mark.parametrize("gray", [0, 128, 255])
def test_blank_picture_is_rejected(tmp_path, size, gray):
    Image.new("L", size, gray).save(tmp_path / "a.png")
    assert "shows no digit" in _rejection(tmp_path / "a.png")


def _triangle(drawing):
    drawing.polygon([(120, 30), (50, 150), (200, 150)], fill=20)


def _chessboard(drawing):
    for x, y in np.argwhere(np.indices((8, 8)).sum(axis=0) % 2):
        drawing.rectangle((30 * x, 30 * y, 30 * x + 29, 30 * y + 29), fill=90)


def _code(drawing):
    for x, y in np.argwhere(np.random.default_rng(0).random((25, 25)) < 0.5):
        drawing.rectangle((20 + 8 * x, 20 + 8 * y, 27 + 8 * x, 27 + 8 * y), fill=20)


def _scribble(drawing):
    points = np.cumsum(np.random.default_rng(3).normal(0, 22, (60, 2)), axis=0)
    points += 120 - (points.min(axis=0) + points.max(axis=0)) / 2
    drawing.line([tuple(point) for point in points], fill=20, width=8, joint="curve")


@pytest.mark.parametrize("draw", [_triangle, _chessboard, _code, _scribble])
def test_shapes_that_are_no_digit_are_rejected(tmp_path, draw):
    image = Image.new("L", (240, 240), 240)
    draw(ImageDraw.Draw(image))
    image.save(tmp_path / "a.png")
    assert "shows no digit: only" in _rejection(tmp_path / "a.png")


def test_each_digit_of_a_number_cropped_to_the_ink_is_read(tmp_path, digits):
    originals = digits[[4, 2, 7]]
    crops = [np.pad(_crop(_enlarge(image, 6) > 0.4), ((0, 0), (0, 20))) for image in originals]
    height = max(len(crop) for crop in crops)
    crops = [np.pad(crop, ((0, height - len(crop)), (0, 0))) for crop in crops]
    path = _save(tmp_path / "a.png", 0.9 - 0.8 * np.hstack(crops)[:, :-20])
    for read, original in zip(read_digit_images(path), originals, strict=True):
        assert _similarity(read, original) > 0.85
    assert "3 separate figures" in _rejection(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_empty_paper_is_rejected(tmp_path, suffix):
    y, x = np.mgrid[0:1:300j, 0:1:400j]
    noise = np.random.default_rng(0).normal(size=x.shape)
    path = _save(tmp_path / f"a.{suffix}", 0.6 + 0.3 * x - 0.1 * y * y + 0.03 * noise)
    assert "shows no digit" in _rejection(path)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_file_is_read_or_rejected(tmp_path, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP"]))
    buffer = io.BytesIO()
    _draw_seven((60, 60), width=6, offset=(5, 5)).convert("RGB").save(buffer, kind)
    content = bytearray(buffer.getvalue())
    del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content)
    try:
        assert read_digit_image(path).shape == (28, 28)
    except DataError:
        _rejection(path)
