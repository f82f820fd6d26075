import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deeplab.data.datasets import get_dataset
from deeplab.data.headers import read_header
from deeplab.data.images import EncodedImage, check_mask, check_pair, check_photo, decode_labels, encode_png
from deeplab.data.labels import colour_map, label_map
from deeplab.errors import DataError

_SAMPLE, _ADE20K = (get_dataset(name).layout.splits["train"].masks[0].reading for name in ("sample", "ade20k"))


def _encoded(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _noise(height=40, width=60):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def _mask(*values):
    return np.array([values], np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_photo_is_what_its_bytes_are(kind):
    encoded = _encoded(_noise(), kind)
    name = f"x.{kind}"
    assert check_photo(encoded, name) == check_photo(encoded, "x") == EncodedImage(encoded, kind.lower(), 40, 60)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_photo_cut_short_is_an_error(kind, share):
    encoded = _encoded(_noise(), kind)
    with pytest.raises(DataError, match=r"x: damaged or cut short"):
        check_photo(encoded[: int(len(encoded) * share)], "x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("tail", [bytes(7), b"notes of a tool"])
def test_bytes_behind_the_end_are_no_error(kind, tail):
    encoded = _encoded(_noise(), kind) + tail
    assert check_photo(encoded, "x").encoded == encoded


@pytest.mark.parametrize(
    ("encoded", "message"),
    [(b"", "is empty"), (b"text", "neither JPEG nor PNG"), (_encoded(_noise(), "BMP"), "neither JPEG nor PNG")],
)
def test_what_is_no_photo(encoded, message):
    with pytest.raises(DataError, match=f"x.jpg: .*{message}"):
        check_photo(encoded, "x.jpg")


def test_a_gray_mask_is_kept_as_it_is():
    encoded = encode_png(_mask(0, 8, 255))
    assert check_mask(encoded, "m.png", _SAMPLE) == EncodedImage(encoded, "png", 1, 3)


def test_a_palette_mask_becomes_its_indices():
    image = Image.frombytes("P", (3, 1), bytes([0, 2, 255]))
    image.putpalette([200, 100, 50] * 256)
    checked = check_mask(_encoded(image, "PNG"), "m.png", _SAMPLE)
    with Image.open(io.BytesIO(checked.encoded)) as written:
        assert written.mode == "L"
    np.testing.assert_array_equal(decode_labels(checked.encoded, "m.png"), _mask(0, 2, 255))


@pytest.mark.parametrize(
    ("dataset", "values", "message"),
    [
        (_ADE20K, (0, 150, 151), r"m\.png: label value 151 at row 0, column 2; ade20k allows 0\.\.150\. Mend"),
        (_ADE20K, (255,), r"label value 255 .*allows 0\.\.150\. Mend"),
        (_SAMPLE, (255, 9), r"label value 9 at row 0, column 1; sample allows 0\.\.8 and 255 \(ignored\)"),
    ],
)
def test_a_value_out_of_range_is_named(dataset, values, message):
    with pytest.raises(DataError, match=message):
        check_mask(encode_png(_mask(*values)), "m.png", dataset)


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (_noise(), "PNG", "a colour PNG; save the class numbers as 8-bit gray"),
        (Image.fromarray(np.zeros((2, 2), np.uint16)), "PNG", "a 16-bit PNG"),
        (Image.new("LA", (2, 2)), "PNG", "a PNG with transparency; save it"),
        (_noise().convert("L"), "JPEG", "a JPEG; masks must be PNG"),
    ],
)
def test_masks_of_other_kinds_are_refused_with_a_remedy(image, kind, message):
    with pytest.raises(DataError, match=f"m.png: {message}"):
        check_mask(_encoded(image, kind), "m.png", _SAMPLE)


def test_a_gray_mask_stored_as_colour_is_its_gray_values():
    labels = np.random.default_rng(0).integers(0, 9, (5, 7)).astype(np.uint8)
    checked = check_mask(encode_png(np.repeat(labels[..., None], 3, axis=2)), "m.png", _SAMPLE, values=False)
    np.testing.assert_array_equal(decode_labels(checked.encoded, "m.png"), labels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_masks_of_every_depth_become_their_indices(bits):
    labels = np.random.default_rng(0).integers(0, min(9, 2**bits), (5, 7)).astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette([200, 100, 50] * 256)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=bits)
    checked = check_mask(buffer.getvalue(), "m.png", _SAMPLE, values=False)
    with Image.open(io.BytesIO(checked.encoded)) as written:
        assert written.mode == "L"
    np.testing.assert_array_equal(decode_labels(checked.encoded, "m.png"), labels)


def test_values_become_labels():
    reading = label_map("mine", 3, 255, {10: 2, 7: 255}, -1)
    mask = _mask(1, 2, 10, 7, 255, 3)
    checked = check_mask(encode_png(mask), "m.png", reading, values=False)
    np.testing.assert_array_equal(decode_labels(checked.encoded, "m.png"), _mask(0, 1, 2, 255, 255, 2))
    with pytest.raises(DataError, match=r"label value 0 .*; mine allows 1\.\.3, 7, 10 and 255 \(ignored\)"):
        check_mask(encode_png(_mask(0)), "m.png", reading, values=False)


def test_colours_become_labels():
    reading = colour_map("mine", [(1, 2, 3), (250, 0, 9)], [(0, 0, 0)], 255)
    colours = np.array([[[250, 0, 9], [1, 2, 3], [0, 0, 0]]], np.uint8)
    checked = check_mask(encode_png(colours), "m.png", reading, values=False)
    np.testing.assert_array_equal(decode_labels(checked.encoded, "m.png"), _mask(1, 0, 255))
    with pytest.raises(DataError, match=r"colour 9,9,9 at row 0, column 1 is no class of mine\. Mend the mask, add"):
        check_mask(encode_png(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8)), "m.png", reading)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(300)}, {"restart": 2}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_headers_tell_what_the_decoder_tells(mode, options):
    buffer = io.BytesIO()
    options = {"restart_marker_rows" if name == "restart" else name: value for name, value in options.items()}
    _noise(33, 70).convert(mode).save(buffer, "JPEG", **options)
    header = read_header(buffer.getvalue())
    assert (header.height, header.width, header.channels, header.complete) == (33, 70, len(mode), True)


def test_a_header_alone_or_without_sense_is_none():
    jpeg, png = _encoded(_noise(), "JPEG"), _encoded(_noise(), "PNG")
    for whole in (jpeg, png):
        for length in (0, 1, 2, 8, 20):
            assert read_header(whole[:length]) is None
    assert read_header(jpeg[:2] + b"\0\0" + jpeg[4:]) is None


def test_a_mask_cut_short_is_an_error():
    encoded = encode_png(np.random.default_rng(0).integers(0, 9, (50, 50)).astype(np.uint8))
    with pytest.raises(DataError, match="damaged or cut short"):
        check_mask(encoded[:500], "m.png", _SAMPLE)


def test_sizes_of_a_pair_must_agree():
    photo, mask = EncodedImage(b"", "jpeg", 40, 60), encode_png(np.zeros((60, 40), np.uint8))
    with pytest.raises(DataError, match=r"m\.png is 40x60 pixels, its photo p\.jpg 60x40"):
        check_pair(photo, mask, "p.jpg", "m.png")
    check_pair(photo, encode_png(np.zeros((40, 60), np.uint8)), "p.jpg", "m.png")


def _shallow(depth, *values):
    """A gray PNG of one row with so many bits a pixel."""
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = b"\0" + int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", len(values), 1, depth, 0, 0, 0, 0)), (b"IDAT", zlib.compress(row))]
    framed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_gray_masks_of_few_bits_hold_class_numbers(depth):
    values = (0, 1, (1 << depth) - 1)
    checked = check_mask(_shallow(depth, *values), "m.png", label_map("own", 16, 255, {}, 0))
    assert read_header(checked.encoded).depth == 8
    np.testing.assert_array_equal(decode_labels(checked.encoded, "m.png"), _mask(*values))


def test_spread_values_stay_where_the_map_names_one():
    checked = check_mask(_shallow(1, 0, 1), "m.png", label_map("own", 2, 255, {255: 1}, 0))
    np.testing.assert_array_equal(decode_labels(checked.encoded, "m.png"), _mask(0, 1))
