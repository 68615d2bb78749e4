"""What a user's folder may hold: formats, endings, orientation, sizes, and files that are no sample's."""

import io
import os
import struct
import unicodedata
import warnings

import blosc2
import cv2
import h5py
import numpy as np
import pytest
from PIL import Image, ImageOps

from datasets_prep.errors import BadSample, Note, UserError, WrongLayout
from datasets_prep.formats.maps import encode_exr
from datasets_prep.formats.pictures import decode_rgb
from datasets_prep.plan.listing import list_samples
from datasets_prep.plan.shards import plan_ingest
from datasets_prep.settings import IngestSettings
from datasets_prep.sources.folder import FolderSource
from datasets_prep.storage.folder import Folder
from tests.support.preparing import left_out, pixels, prepared
from tests.support.raw_files import put, read_first

DESCRIPTION = "name: mine\nquantity: depth\nmetric: true\nscale: 0.001\n"
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
DEPTH = np.arange(1, 49, dtype=np.float32).reshape(6, 8)


def encoded(values: np.ndarray, kind: str, **options: object) -> bytes:
    """By Pillow."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def hdf5(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return stream.getvalue()


PHOTO = encoded(PIXELS, "PNG")


def folder(root, more: str = "", **files: bytes) -> Folder:
    """A folder with `dataset.yaml`, to which lines are added, and files: `images__a__PNG` is images/a.PNG."""
    named = {name.replace("__", "/", 1).replace("__", "."): data for name, data in files.items()}
    return put(root, {"dataset.yaml": (DESCRIPTION + more).encode(), **named})


def read(root: Folder):
    return read_first(FolderSource().opened(root, {}), root)


def listed(root: Folder):
    listing = list_samples(FolderSource().opened(root, {}), root)
    names = [sample.sample_id for sample in listing.samples]
    left_out = {entry.path: entry.reason for entry in listing.rejected + listing.unused}
    return names, left_out


@pytest.mark.parametrize(("ending", "kind"), [
    ("png", "PNG"), ("WebP", "WEBP"), ("BMP", "BMP"), ("ppm", "PPM"), ("tif", "TIFF"), ("TIFF", "TIFF"),
])  # fmt: skip
def test_photos_without_loss_have_their_pixels(tmp_path, ending, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    files = {f"images__a__{ending}": encoded(PIXELS, kind, **options), "depth__a__npy": npy(DEPTH)}
    assert (decode_rgb(read(folder(tmp_path, **files)).image) == PIXELS).all()


@pytest.mark.parametrize("ending", ["pgm", "PNG", "bmp"])
def test_a_grey_photo(tmp_path, ending):
    grey = PIXELS[..., 0]
    photo = encoded(grey, {"pgm": "PPM"}.get(ending, ending))
    raw = read(folder(tmp_path, **{f"images__a__{ending}": photo, "depth__a__npy": npy(DEPTH)}))
    assert (decode_rgb(raw.image) == grey[..., None]).all()


# Values up to 4095 that OpenCV stores in 16 bits; in the PPM and PGM it calls 65535 white.
DEEP = np.random.default_rng(1).permutation(144).reshape(6, 8, 3).astype(np.uint16) * 28 + 91


def as_text(values: np.ndarray) -> bytes:
    return b" ".join(b"%d" % value for value in values.ravel())


def by_opencv(ending: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(ending, np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()


@pytest.mark.parametrize(("ending", "data", "shown"), [
    ("tif", by_opencv(".tif", DEEP), DEEP / 4095),
    ("ppm", by_opencv(".ppm", DEEP), DEEP / 4095),
    ("pgm", b"P5 8 6 65535\n" + DEEP[..., 0].astype(">u2").tobytes(), DEEP[..., :1] / 4095),
    ("ppm", b"P6\n8 6\n8000\n" + DEEP.astype(">u2").tobytes(), DEEP / 8000),  # says what is white
    ("ppm", b"P3 8 6 8000\n" + as_text(DEEP), DEEP / 8000),
    ("pgm", b"P2 8 6 8000\n" + as_text(DEEP[..., 0]), DEEP[..., :1] / 8000),
])  # fmt: skip
def test_photos_of_more_than_8_bits_are_stretched_in_every_format(tmp_path, ending, data, shown):
    raw = read(folder(tmp_path, **{f"images__a__{ending}": data, "depth__a__npy": npy(DEPTH)}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        photo = decode_rgb(raw.image)
    assert (photo == np.rint(np.broadcast_to(shown, (6, 8, 3)) * 255)).all()


@pytest.mark.parametrize(("ending", "data"), [
    ("PNG", encoded(DEPTH.astype(np.uint16), "PNG")),
    ("Npz", npz(depth=DEPTH)),
    ("npz", npz(any_name=DEPTH[None])),
    ("pgm", b"P5\n# from a robot\n8 6\n65535\n" + DEPTH.astype(">u2").tobytes()),
    ("PGM", b"P5 8 6 1000\n" + DEPTH.astype(">u2").tobytes()),  # values as stored, whatever their maximum
    ("pgm", b"P5 8 6 255\n" + DEPTH.astype(np.uint8).tobytes()),
    ("pgm", b"P2\n8 6 # text\n1000\n" + b"# a row\n".join(b"%d\n" % value for value in range(1, 49))),
    ("h5", hdf5(depth=DEPTH, rgb=PIXELS)),
    ("HDF5", hdf5(depth=DEPTH.astype(np.uint16))),
    ("NPY", npy(DEPTH.astype(np.float64))),
    ("TIF", encoded(DEPTH, "TIFF")),
    ("Exr", encode_exr({"Z": DEPTH})),
    ("pfm", b"Pf\n8 6\n-1\n" + DEPTH[::-1].astype("<f4").tobytes()),
])  # fmt: skip
def test_maps_of_every_format_have_their_values(tmp_path, ending, data):
    raw = read(folder(tmp_path, **{"images__a__png": PHOTO, f"depth__a__{ending}": data}))
    np.testing.assert_allclose(raw.target, DEPTH / 1000, rtol=1e-6)


COLOURS = {"R": DEPTH + 5, "G": DEPTH + 6, "B": DEPTH + 7}


@pytest.mark.parametrize("channels", [
    *({name: DEPTH} for name in ("Camera.Z", "depth.Z", "ViewLayer.Depth.Z", "Depth", "far", "near.Far.V")),
    *({name: DEPTH, **COLOURS} for name in ("Camera.Z", "depth", "ViewLayer.Depth.V", "RenderLayer.Depth.Z")),
    {"ViewLayer.Depth.Z": DEPTH, **{f"ViewLayer.Combined.{name}": one for name, one in COLOURS.items()}},
    {"depth.Z": DEPTH, "normal.X": DEPTH + 1, "normal.Y": DEPTH + 2, "normal.Z": DEPTH + 3},
    {"Z": DEPTH, "depth.Z": DEPTH + 1, **COLOURS},
    {"Y": DEPTH, "A": DEPTH + 1},
    {"G": DEPTH, "A": DEPTH + 1},
    dict.fromkeys("RGB", DEPTH),
], ids=", ".join)  # fmt: skip
def test_the_depth_of_an_exr_is_found_by_the_name_that_renderers_give_it(tmp_path, channels):
    raw = read(folder(tmp_path, images__a__png=PHOTO, depth__a__exr=encode_exr(channels)))
    np.testing.assert_allclose(raw.target, DEPTH / 1000, rtol=1e-6)


@pytest.mark.parametrize(("channels", "message"), [
    ({"A.Z": DEPTH, "B.Z": DEPTH}, r"^depth EXR has channels \['A\.Z', 'B\.Z'\]; choose one of them as"),
    ({"normal.X": DEPTH, "normal.Y": DEPTH, "normal.Z": DEPTH}, r"\['normal\.X', .*; choose one of them as"),
    (COLOURS, "^depth EXR is a colour picture; if it has depth, choose it as `channel`"),
], ids=["two depths", "normals", "colours"])  # fmt: skip
def test_of_an_exr_without_one_depth_none_is_guessed(tmp_path, channels, message):
    with pytest.raises(BadSample, match=message):
        read(folder(tmp_path, images__a__png=PHOTO, depth__a__exr=encode_exr(channels)))


@pytest.mark.parametrize(("ending", "data"), [
    ("exr", encode_exr({"Z": DEPTH + 7, "near.V": DEPTH})),
    ("npz", npz(rgb=PIXELS, **{"near.V": DEPTH})),
    ("h5", hdf5(far=DEPTH + 7, **{"near.V": DEPTH})),
])  # fmt: skip
def test_the_channel_of_the_description_is_read(tmp_path, ending, data):
    files = {"images__a__png": PHOTO, f"depth__a__{ending}": data}
    np.testing.assert_allclose(
        read(folder(tmp_path, "channel: near.V", **files)).target, DEPTH / 1000, rtol=1e-6
    )


@pytest.mark.parametrize(("ending", "data"), [
    ("exr", encode_exr({"Z": DEPTH})), ("npz", npz(Z=DEPTH)), ("h5", hdf5(Z=DEPTH)),
])  # fmt: skip
def test_another_channel_than_that_of_the_description_is_not_taken_for_it(tmp_path, ending, data):
    files = {"images__a__png": PHOTO, f"depth__a__{ending}": data}
    with pytest.raises(BadSample, match=r"near\.V"):
        read(folder(tmp_path, "channel: near.V", **files))


@pytest.mark.parametrize(("ending", "data", "message"), [
    ("npz", npz(a=DEPTH, b=DEPTH), r"NPZ has arrays \['a', 'b'\]: no single map; choose one as `channel`$"),
    ("npz", npz(a=np.array([None])), "^depth NPY header does not describe a numeric array"),
    ("npz", npz(a=DEPTH)[:-30], "^depth NPZ damaged"),
    ("h5", hdf5(a=DEPTH, b=DEPTH), r"^depth HDF5 has arrays \['a', 'b'\]: no single map"),
    ("h5", b"no", "^depth HDF5 damaged"),
    ("pgm", b"P5 8 6 255\n" + bytes(47), "PGM does not fit: header says 8x6 up to 255 = 48 values, file"),
    ("pgm", b"P1 1 1 255\n7", "^depth is not a PGM"),
    ("pgm", b"P2 1 1 255\n7 x", "^depth PGM damaged"),
    ("pgm", b"P2 2 1 255\n7 256", "PGM does not fit: .* up to 255 = 2 values, file has 2 up to 256"),
    ("pgm", b"P5 2 1 256\n\0\1\0", "PGM does not fit: .* = 2 values, file has 1"),
    ("pgm", b"P5 99999 99999 255\n", "^depth declares 99999x99999 pixels"),
])  # fmt: skip
def test_maps_that_cannot_be_read(tmp_path, ending, data, message):
    with pytest.raises(BadSample, match=message):
        read(folder(tmp_path, **{"images__a__png": PHOTO, f"depth__a__{ending}": data}))


def planes_apart() -> bytes:
    """A TIFF of 16 bits whose tag 284 says that red, green and blue are pictures of their own."""
    data = by_opencv(".tif", DEEP)
    at = data.index(struct.pack("<HHIH", 284, 3, 1, 1))
    return data[: at + 8] + b"\2" + data[at + 9 :]


@pytest.mark.parametrize(("ending", "data", "message"), [
    ("webp", encoded(PIXELS, "WEBP")[:40], "^image is neither JPEG nor PNG|^image damaged"),
    ("bmp", encoded(PIXELS, "BMP")[:-9], "^image damaged"),
    ("tif", encoded(DEPTH, "TIFF"), "^image has pixels of kind F, expected 8 or 16 bits"),
    ("tif", planes_apart(), "16 bits has its channels one after another"),
    ("webp", encoded(PIXELS, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 6))]), "2 pictures"),
])  # fmt: skip
def test_photos_that_cannot_be_read(tmp_path, ending, data, message):
    with pytest.raises(BadSample, match=message):
        read(folder(tmp_path, **{f"images__a__{ending}": data, "depth__a__npy": npy(DEPTH)}))


# ---- orientation


def turned_photo(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(PIXELS, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_apply_shows_the_photo_as_pillow_does(tmp_path, kind, orientation):
    photo = turned_photo(kind, orientation)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(photo))))
    depth = np.ones(shown.shape[:2], np.float32)
    root = folder(tmp_path, "exif: apply", **{f"images__a__{kind}": photo, "depth__a__npy": npy(depth)})
    found = decode_rgb(read(root).image)
    assert found.shape == shown.shape
    assert (found == shown).all()


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_exif_of_a_jpeg(tmp_path, orientation):
    photo = turned_photo("JPEG", orientation)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(photo)))).astype(int)
    files = {"images__a__jpg": photo, "depth__a__npy": npy(np.ones(shown.shape[:2], np.float32))}
    assert abs(decode_rgb(read(folder(tmp_path, "exif: apply", **files)).image) - shown).max() <= 2
    files["depth__a__npy"] = npy(DEPTH)
    assert read(folder(tmp_path, "exif: ignore", **files)).image == photo


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_without_a_rule_turned_photos_are_left_out_with_the_way_out(tmp_path, kind):
    files = {f"images__b__{kind}": turned_photo(kind, 3), "depth__b__npy": npy(DEPTH)}
    message = r"^image has EXIF orientation 3; add to dataset.yaml `exif:` apply \(depth is upright"
    with pytest.raises(BadSample, match=message):
        read(folder(tmp_path, **files))
    if kind != "JPEG":
        assert (decode_rgb(read(folder(tmp_path, "exif: ignore", **files)).image) == PIXELS).all()


def test_stray_bytes_do_not_hide_the_orientation(tmp_path):
    photo = turned_photo("JPEG", 3)
    files = {"images__a__jpg": photo[:2] + b"\x00\x01" + photo[2:], "depth__a__npy": npy(DEPTH)}
    with pytest.raises(BadSample, match="EXIF orientation 3"):
        read(folder(tmp_path, **files))


def test_damaged_exif_is_none(tmp_path):
    photo = encoded(PIXELS, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read(folder(tmp_path, images__a__jpg=photo, depth__a__npy=npy(DEPTH))).image == photo


# ---- sizes


def test_phone_depth_is_resized_without_mixing_values(tmp_path, monkeypatch):
    small = np.random.default_rng(1).integers(500, 9000, (24, 32)).astype(np.uint16)
    photo = encoded(np.zeros((180, 240, 3), np.uint8), "PNG")
    files = {"images__a__png": photo, "depth__a__png": encoded(small, "PNG")}
    dataset = prepared(
        "folder", folder(tmp_path, "resize_depth: true", **files).uri, tmp_path / "out", monkeypatch
    )
    row = pixels(dataset)["a"]
    inverse = np.frombuffer(blosc2.decompress2(row["inverse_depth"]), np.float16).astype(float)
    metres = 1 / (inverse.reshape(row["height"], row["width"]) * row["scale"])
    assert metres.shape == (32, 43)
    rows, columns = (np.arange(32) + 0.5) * 24 / 32, (np.arange(43) + 0.5) * 32 / 43
    expected = small[rows.astype(int)[:, None], columns.astype(int)] / 1000
    np.testing.assert_allclose(metres, expected, rtol=1e-3)


@pytest.mark.parametrize(("more", "photo", "depth", "message"), [
    ("", (6, 8), (3, 4), "^size mismatch: image is 8x6, ground truth is 4x3; .* `resize_depth: true`$"),
    ("resize_depth: true", (6, 8), (3, 4), None),
    ("resize_depth: true", (375, 1242), (187, 621), None),
    ("resize_depth: true", (1080, 1920), (192, 256), "image is 1920x1080, ground truth is 256x192: another"),
    ("resize_depth: true", (6, 8), (8, 6), "image is 8x6, ground truth is 6x8: another aspect ratio"),
    ("resize_depth: true", (48, 64), (96, 128), None),
])  # fmt: skip
def test_sizes_of_photo_and_depth(tmp_path, more, photo, depth, message):
    image = encoded(np.zeros((*photo, 3), np.uint8), "PNG")
    root = folder(tmp_path, more, images__a__png=image, depth__a__npy=npy(np.ones(depth, np.float32)))
    if message is None:
        assert read(root).target.shape == depth
    else:
        with pytest.raises(BadSample, match=message):
            read(root)


@pytest.mark.parametrize(
    ("text", "invalid"), [("65535", [65535]), ("[0, 65535]", [0, 65535]), ("-1.5", [-1.5])]
)
def test_invalid_values_alone_or_in_a_list(tmp_path, text, invalid):
    stored = np.array([[0, 65535, -1.5, 7]], np.float32)
    photo = encoded(np.zeros((1, 4, 3), np.uint8), "PNG")
    root = folder(tmp_path, f"invalid: {text}\n", images__a__png=photo, depth__a__npy=npy(stored))
    expected = [value > 0 and value not in invalid for value in stored[0].tolist()]
    assert read(root).valid.tolist() == [expected]


@pytest.mark.parametrize(
    "line",
    [
        *("sky: .nan", "scale: .inf", "channel: ''", "exif: rotate", "resize_depth: maybe", "scale: true"),
        *("sky: false", "invalid: true", "invalid: [0, true]", "invalid: null"),
    ],
)
def test_values_that_make_no_sense(tmp_path, line):
    key = line.partition(":")[0]
    description = DESCRIPTION.replace("scale: 0.001\n", "") if key == "scale" else DESCRIPTION
    root = put(tmp_path, {"dataset.yaml": f"{description}{line}\n".encode()})
    with pytest.raises(WrongLayout, match=rf"dataset\.yaml: {key}: "):
        FolderSource().opened(root, {})


# ---- what is no sample


def test_no_file_is_dropped_without_a_word(tmp_path):
    files = {
        **{f"images/{name}": PHOTO for name in ("a.png", "b.HEIC", "only.png", "e.png")},
        **{f"depth/{name}": npy(DEPTH) for name in ("a.npy", "b.npy", "c.mat", "noend", "e.npy", "e.PNG")},
        **dict.fromkeys(("notes.txt", "labels/a.png"), b""),
        "dataset.yaml": DESCRIPTION.encode(),
    }
    names, left_out = listed(put(tmp_path, files))
    assert names == ["a"]
    used = {"images/a.png", "depth/a.npy", "images/e.png", "depth/e.npy", "dataset.yaml"}
    assert set(left_out) == (set(files) - used) | {"depth/e.npy"}
    assert left_out["images/b.HEIC"].startswith("not read: files in images/ end in jpg, jpeg, png, webp, ")
    assert left_out["depth/c.mat"].startswith("not read: files in depth/ end in png, npy, npz, ")
    assert left_out["depth/b.npy"].startswith("no images/b that ends in jpg, ")
    assert left_out["images/only.png"].startswith("no depth/only that ends in png, npy, ")
    assert left_out["notes.txt"] == left_out["labels/a.png"] == "not read: neither in images/ nor in depth/"
    assert left_out["depth/e.PNG"] == "two depth maps, depth/e.PNG and depth/e.npy: keep one of them"


SYSTEM_FILES = (
    *("._dataset.yaml", ".DS_Store", "images/._a.png", "depth/._a.npy", "images/.thumbs/a.png"),
    *("Thumbs.db", "images/Thumbs.db", "depth/desktop.ini", "__MACOSX/images/._a.png", ".git/config"),
    "splits/._test.txt",
)


def test_files_of_operating_systems_spoil_nothing_and_make_no_other_version(tmp_path):
    root = folder(tmp_path, images__a__png=PHOTO, depth__a__npy=npy(DEPTH))
    version = plan_ingest("folder", root.uri, IngestSettings()).version
    put(tmp_path, dict.fromkeys(SYSTEM_FILES, b"\0\5\26\7"))
    plan = plan_ingest("folder", root.uri, IngestSettings())
    assert (plan.samples, plan.version) == (1, version)
    assert {entry.path for entry in plan.rejected} == set(SYSTEM_FILES)
    assert {entry.reason for entry in plan.rejected} == {"hidden, special, or a file of the operating system"}


def test_system_files_are_no_samples_of_published_datasets_either(tmp_path):
    put(tmp_path, {f"{where}/._x.{end}": b"" for where, end in (("Imgs", "jpg"), ("RDs", "png"))})
    with pytest.raises(
        WrongLayout, match=r"First file left out: Imgs/\._x\.jpg: hidden, special, or a file of the operating"
    ):
        plan_ingest("redweb", str(tmp_path), IngestSettings())


@pytest.mark.parametrize(
    "name", ["a\nb", "50%/a b", "#1", "[x]*?", "a.b.c", "Küche/é", "日本/写真", "a'\"b", "~", "x::y"]
)
def test_names_of_every_kind(tmp_path, name):
    put(tmp_path / "r%20[1]#", {"dataset.yaml": DESCRIPTION.encode(), f"images/{name}.png": PHOTO})
    root = put(tmp_path / "r%20[1]#", {f"depth/{name}.npy": npy(DEPTH)})
    assert listed(root) == ([name], {})
    assert read(root).target.shape == (6, 8)


def test_one_name_written_in_two_ways_of_unicode_is_one_name(tmp_path):
    image, depth = (unicodedata.normalize(form, "Küche/é") for form in ("NFD", "NFC"))
    root = put(tmp_path, {"dataset.yaml": DESCRIPTION.encode(), f"images/{image}.png": PHOTO})
    put(tmp_path, {f"depth/{depth}.npy": npy(DEPTH)})
    assert listed(root) == ([depth], {})
    assert read(root).target.shape == (6, 8)


def test_names_that_differ_in_case_are_two_samples(tmp_path):
    files = {f"{where}/{name}": PHOTO for where in ("images", "depth") for name in ("a.png", "A.png")}
    assert listed(put(tmp_path, {**files, "dataset.yaml": DESCRIPTION.encode()}))[0] == ["A", "a"]


def test_folders_may_be_links_and_written_in_capitals(tmp_path):
    root = put(tmp_path / "raw", {"dataset.yaml": DESCRIPTION.encode(), "Depth/x/a.NPY": npy(DEPTH)})
    put(tmp_path / "disk", {"x/a.PNG": PHOTO})
    (tmp_path / "raw" / "IMAGES").symlink_to(tmp_path / "disk")
    assert listed(root) == (["x/a"], {})


def test_links_to_nothing_are_named(tmp_path, monkeypatch):
    files = {f"{where}/a.npy": npy(DEPTH) for where in ("depth", "disk")} | {"images/a.png": PHOTO}
    root = put(tmp_path / "raw", files | {"dataset.yaml": DESCRIPTION.encode(), "depth/b.npy": npy(DEPTH)})
    for link in ("images/disk2", "depth/disk2", "images/b.png"):
        (tmp_path / "raw" / link).symlink_to(tmp_path / "not mounted")
    dataset = prepared("folder", root.uri, tmp_path / "out", monkeypatch)
    assert set(pixels(dataset)) == {"a"}
    reasons = left_out(dataset)
    assert set(reasons) == {"images/disk2", "depth/disk2", "images/b.png", "disk/a.npy"}
    assert reasons["images/b.png"].startswith("FileNotFoundError")
    put(tmp_path / "raw", {"splits/train.txt": b"a"})
    (tmp_path / "raw" / "splits" / "test.txt").symlink_to(tmp_path / "not mounted")
    with pytest.raises(UserError, match=r"splits/test\.txt is a link to a file that does not exist"):
        plan_ingest("folder", root.uri, IngestSettings())


def test_pipes_are_named_and_never_read(tmp_path, monkeypatch):
    root = folder(tmp_path / "raw", images__a__png=PHOTO, depth__a__npy=npy(DEPTH), images__b__png=PHOTO)
    for name in ("depth/b.npy", "stray"):
        os.mkfifo(tmp_path / "raw" / name)
    dataset = prepared("folder", root.uri, tmp_path / "out", monkeypatch)
    assert set(pixels(dataset)) == {"a"}
    assert set(left_out(dataset)) == {"depth/b.npy", "images/b.png", "stray"}


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/missing", path)])
def test_a_description_that_is_not_a_file(tmp_path, make):
    make(tmp_path / "dataset.yaml")
    with pytest.raises(WrongLayout, match=r"^no file .*/dataset\.yaml: it says what"):
        plan_ingest("folder", str(tmp_path), IngestSettings())


def test_an_empty_folder_says_what_is_expected(tmp_path):
    root = put(tmp_path, {"dataset.yaml": DESCRIPTION.encode()})
    (tmp_path / "images").mkdir()
    with pytest.raises(
        WrongLayout, match=r"^no mine sample in .*; expected dataset.yaml.*depth/<name>\.\{png,"
    ):
        plan_ingest("folder", root.uri, IngestSettings())
