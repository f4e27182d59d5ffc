import io
import struct
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.data.images import decoding
from meta_pseudo_labels.data.images.decoding import (
    decode_image,
    read_image_file,
)
from meta_pseudo_labels.data.images.headers import ImageError, read_header

# 20 rows, 30 columns: a size that tells height from width.
PIXELS = np.random.RandomState(0).randint(0, 256, [20, 30, 4]).astype(np.uint8)
RGB, GRAY = PIXELS[..., :3], PIXELS[..., :1]


@pytest.fixture(scope="module")
def bad_inputs(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    with tarfile.open(data_dir / "bad_inputs.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder / "bad_inputs"


def encode(image, kind="png", **settings):
    return getattr(tf.io, f"encode_{kind}")(image, **settings).numpy()


def bmp(image, *, compression=0, palette=b""):
    """A BMP, rows from the top down, as a negative height says."""
    height, width, channels = image.shape
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    pad = -width * channels % 4
    rows = np.pad(
        image[..., order].reshape(height, width * channels), [[0, 0], [0, pad]]
    )
    start = 54 + len(palette)
    return (
        b"BM"
        + struct.pack("<IHHI", start + rows.size, 0, 0, start)
        + struct.pack("<IiiHH", 40, width, -height, 1, 8 * channels)
        + struct.pack("<IIiiII", compression, 0, 0, 0, 0, 0)
        + palette
        + rows.tobytes()
    )


GRAY_PALETTE = bytes(value for i in range(256) for value in (i, i, i, 0))


def pillow(image, kind, mode=None, **settings):
    Image = pytest.importorskip("PIL.Image")
    if isinstance(image, list):
        first, *more = map(Image.fromarray, image)
        settings |= dict(save_all=True, append_images=more)
    else:
        first = Image.fromarray(image)
    if mode:
        first = first.convert(mode)
    file = io.BytesIO()
    first.save(file, kind, **settings)
    return file.getvalue()


def as_pillow(data):
    Image = pytest.importorskip("PIL.Image")
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("encoder", [encode, bmp])
def test_color_is_exact(encoder):
    got = decode_image(encoder(RGB))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, RGB)


@pytest.mark.parametrize("encoder", [encode, bmp])
def test_alpha_is_dropped(encoder):
    np.testing.assert_array_equal(decode_image(encoder(PIXELS)), RGB)


def test_gray_becomes_rgb():
    want = np.repeat(GRAY, 3, axis=-1)
    for data in (encode(GRAY), bmp(GRAY, palette=GRAY_PALETTE)):
        np.testing.assert_array_equal(decode_image(data), want)
    with_alpha = encode(PIXELS[..., :2])
    np.testing.assert_array_equal(decode_image(with_alpha), want)
    jpeg = decode_image(encode(GRAY, "jpeg", format="grayscale", quality=100))
    assert np.ptp(jpeg, axis=-1).max() == 0
    assert abs(jpeg.astype(int) - want).max() <= 2


def test_sixteen_bits_keep_the_upper_eight():
    deep = RGB.astype(np.uint16) * 256 + 255
    np.testing.assert_array_equal(decode_image(encode(deep)), RGB)


def test_jpeg_is_decoded_accurately():
    data = encode(RGB, "jpeg", quality=90)
    exact, fast = (
        tf.io.decode_jpeg(data, dct_method=method).numpy()
        for method in ("INTEGER_ACCURATE", "INTEGER_FAST")
    )
    assert (exact != fast).any()
    np.testing.assert_array_equal(decode_image(data), exact)


def test_cmyk_becomes_rgb():
    data = pillow(RGB, "JPEG", mode="CMYK", quality=95)
    assert abs(decode_image(data) - as_pillow(data).astype(int)).max() <= 1


def test_first_frame_of_a_gif():
    shades = [np.full_like(RGB, shade) for shade in (10, 90, 200)]
    data = pillow(shades, "GIF")
    assert tf.io.decode_gif(data).shape[0] == 3
    np.testing.assert_array_equal(decode_image(data), shades[0])


def test_frames_after_the_first_are_not_decoded():
    data = pillow([RGB[:, :, ::-1].copy(), RGB], "GIF")
    start, end = read_header(data).first_frame
    broken = data[start:end] + b"nonsense"
    np.testing.assert_array_equal(decode_image(broken), decode_image(data))


needs_webp = pytest.mark.skipif(
    not hasattr(tf.io, "decode_webp"), reason="this TensorFlow has no WebP"
)


@needs_webp
@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("image", [RGB, PIXELS])
def test_webp(image, lossless):
    data = pillow(image, "WEBP", lossless=lossless, exact=True)
    want = RGB if lossless else as_pillow(data)
    np.testing.assert_array_equal(decode_image(data), want)


@needs_webp
def test_first_frame_of_a_webp():
    """Not all of it: TensorFlow 2.21 crashes in animations without alpha."""
    frames = [RGB, 255 - RGB, RGB // 2]
    data = pillow(frames, "WEBP", lossless=True)
    np.testing.assert_array_equal(decode_image(data), RGB)


def test_webp_is_refused_where_it_cannot_be_decoded(monkeypatch):
    data = pillow(RGB, "WEBP")
    monkeypatch.delattr(tf.io, "decode_webp", raising=False)
    with pytest.raises(ImageError, match="WebP, which TensorFlow .* does not"):
        decode_image(data)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "empty file"),
        (b"no image, but a text", "not one of JPEG, PNG, GIF, BMP, WebP"),
        (encode(RGB, "jpeg")[:-200], "broken JPEG"),
        (encode(RGB)[:-200], "broken PNG"),
        (encode(RGB)[:20], "PNG that ends in its header"),
        (encode(RGB, "jpeg")[:40], "JPEG without a frame header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG without a header"),
        (bmp(RGB)[:-9], "broken BMP"),
        (bmp(RGB[:0]), "BMP of 30 x 0 pixels"),
        (bmp(RGB, compression=1), "BMP that is compressed"),
        (bmp(GRAY, palette=GRAY_PALETTE[::-1]), "or has a palette"),
        (b"GIF89a" + bytes(8), "GIF without a frame"),
        (b"RIFF\0\0\0\0WEBPVP8 \x40\0\0\0", "WebP that ends in its first fr"),
    ],
)
def test_no_image(data, message):
    with pytest.raises(ImageError, match=message):
        decode_image(data)


def headers_of(width, height):
    """Files that claim a size, of each kind."""
    png = bytearray(encode(RGB))
    png[16:24] = struct.pack(">II", width, height)
    jpeg = bytearray(encode(RGB, "jpeg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    bitmap = bytearray(bmp(RGB))
    bitmap[18:26] = struct.pack("<ii", width, height)
    screen, color_table = struct.pack("<HHBBB", width, height, 0, 0, 0), b""
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x01\0\0"
    lossy = struct.pack("<HH", width, height).rjust(10, b"\0")
    return dict(
        PNG=png,
        JPEG=jpeg,
        BMP=bitmap,
        GIF=b"GIF89a" + screen + color_table + frame,
        WebP=b"RIFF\0\0\0\0WEBPVP8 \x0a\0\0\0" + lossy,
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WebP"])
def test_huge_images_are_refused_before_decoding(kind, monkeypatch):
    def decoder(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setitem(decoding._DECODERS, kind, decoder)
    data = bytes(headers_of(8_001, 8_000)[kind])
    message = f"{kind} of 8001 x 8000 pixels; at most 64000000 are decoded"
    with pytest.raises(ImageError, match=message):
        decode_image(data)
    with pytest.raises(AssertionError, match="decoded"):
        decode_image(bytes(headers_of(8_000, 8_000)[kind]))


def test_the_limit_is_a_setting():
    data = encode(RGB)
    assert decode_image(data, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(ImageError, match="30 x 20 pixels; at most 599"):
        decode_image(data, max_pixels=599)


def test_sizes_of_frames_count_too():
    """A GIF's frame may be larger than the screen it is shown on."""
    data = bytearray(headers_of(1, 1)["GIF"])
    data[18:22] = struct.pack("<HH", 30_000, 20_000)
    header = read_header(bytes(data))
    assert (header.height, header.width) == (20_000, 30_000)


@pytest.mark.parametrize(
    "name, outcome",
    [
        ("truncated.jpg", "broken JPEG"),
        ("zero_bytes.jpg", "empty file"),
        ("text.jpg", "not one of"),
        ("one_pixel.png", (1, 1, 3)),
        ("sixteen_bit.png", (32, 32, 3)),
        ("rgba.png", (32, 32, 3)),
        ("animated.gif", (32, 32, 3)),
        ("huge_20000x20000.png", "PNG of 20000 x 20000 pixels"),
        ("not_a_multiple_of_3073.bin", "not one of"),
        ("corrupt_crc.tfrecord", "not one of"),
    ],
)
def test_bad_inputs(bad_inputs, name, outcome):
    if isinstance(outcome, tuple):
        got = decode_image(read_image_file(bad_inputs / name))
        assert got.shape == outcome and got.dtype == np.uint8
    else:
        with pytest.raises(ImageError, match=outcome):
            decode_image(read_image_file(bad_inputs / name))


def test_files_are_read_no_further_than_sensible(tmp_path):
    path = tmp_path / "padded.png"
    path.write_bytes(encode(RGB) + bytes(10_000))
    assert len(read_image_file(path)) == path.stat().st_size
    with pytest.raises(ImageError, match=r"\d+ bytes; at most 4832 are read"):
        read_image_file(path, max_pixels=600)


def test_unreadable_files(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        read_image_file(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image_file(tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "webp"])
def test_damage_never_gives_more_than_an_error(kind):
    if kind == "webp" and not hasattr(tf.io, "decode_webp"):
        pytest.skip("this TensorFlow has no WebP")
    whole = bmp(RGB) if kind == "bmp" else pillow(RGB, kind)
    random = np.random.RandomState(1)
    errors = 0
    for attempt in range(100):
        data = bytearray(whole)
        # Half of the damage goes to the header.
        end = min(64, len(data)) if attempt % 2 else len(data)
        for _ in range(3):
            data[random.randint(end)] = random.randint(256)
        if attempt % 4 == 0:
            del data[random.randint(len(data)) :]
        try:
            image = decode_image(bytes(data), max_pixels=10_000)
            assert image.size <= 30_000 and image.shape[2] == 3
        except ImageError:
            errors += 1
    assert 0 < errors
