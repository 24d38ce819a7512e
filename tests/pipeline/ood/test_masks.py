"""Mask files of every kind, made here."""

import json
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image

from unstill.pipeline.errors import InputError
from unstill.pipeline.ood.coco_rle import decode_rle
from unstill.pipeline.ood.masks import either, open_masks, read_boxes
from unstill.pipeline.ood.matlab import read_mat

T, H, W = 3, 6, 8
SHAPE = (T, H, W)


@pytest.fixture
def masks():
    return np.random.default_rng(0).random(SHAPE) < 0.4


def runs_of(mask):
    flat, counts, value = mask.T.flatten(), [], False
    at = 0
    while at < len(flat):
        end = at
        while end < len(flat) and flat[end] == value:
            end += 1
        counts.append(end - at)
        at, value = end, not value
    return counts


def text_of(counts):
    """COCO's text of run lengths, from its description."""
    text = ""
    for n, count in enumerate(counts):
        x = count - (counts[n - 2] if n > 2 else 0)
        while True:
            digit, x = x & 31, x >> 5
            more = x != (-1 if digit & 16 else 0)
            text += chr((digit | 32 if more else digit) + 48)
            if not more:
                break
    return text


def test_strip_and_pictures(tmp_path, masks):
    pixels = masks.astype(np.uint8) * 255
    (tmp_path / "run" / "b").mkdir(parents=True)
    Image.fromarray(np.hstack(list(pixels))).save(tmp_path / "run" / "a.png")
    for t in range(T):
        Image.fromarray(pixels[t]).save(tmp_path / "run" / "b" / f"{t:04}.png")
    read = open_masks(tmp_path, "segmentation")
    assert np.array_equal(read("run/a", SHAPE), masks) and np.array_equal(read("run/b", SHAPE), masks)
    assert np.array_equal(read("run/a", (2, H, W)), masks[:2])  # more masks than frames
    assert read("run/c", SHAPE) is None
    with pytest.raises(InputError, match="run/b are 8 x 6, its frames 9 x 6"):
        read("run/b", (T, H, 9))
    with pytest.raises(InputError, match="3 masks of run/b, which has 6 frames; make masks of every frame"):
        read("run/b", (6, H, W))


def test_pictures_that_count_objects(tmp_path, masks):
    """As trackers write them: numbers in a coloured palette, 0 and 1 in grey, and file names without leading zeros."""
    objects = (
        masks * np.arange(1, 1 + T, dtype=np.uint8)[:, None, None]
    )  # a number a frame, and so all of them in strips
    (tmp_path / "run" / "b").mkdir(parents=True)
    palette = Image.fromarray(np.hstack(list(objects)), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])  # DAVIS: none is as bright as 128
    palette.save(tmp_path / "run" / "a.png")
    blue = Image.fromarray(np.hstack(list(masks)).astype(np.uint8), "P")
    blue.putpalette([0, 0, 0, 0, 0, 128])  # as dark as black, seen in grey
    blue.save(tmp_path / "run" / "d.png")
    black_and_white = Image.fromarray(np.hstack(list(masks)).astype(np.uint8), "P")
    black_and_white.putpalette([255, 255, 255, 0, 0, 0])  # white comes first
    black_and_white.save(tmp_path / "run" / "c.png")
    for t in range(T):
        Image.fromarray(masks[t].astype(np.uint8)).save(tmp_path / "run" / "b" / f"{8 + t}.png")  # 8, 9, 10
    read, any_number = open_masks(tmp_path, "segmentation"), open_masks(tmp_path, "segmentation", value="any")
    assert np.array_equal(read("run/a", SHAPE), masks) and np.array_equal(any_number("run/a", SHAPE), masks)
    assert np.array_equal(read("run/c", SHAPE), ~masks) and np.array_equal(read("run/d", SHAPE), masks)
    assert np.array_equal(any_number("run/b", SHAPE), masks)
    assert np.array_equal(
        open_masks(tmp_path, "segmentation", value=2)("run/a", SHAPE)[[0, 2]].any((1, 2)), [False] * 2
    )
    with pytest.raises(InputError, match=r"8\.png is nowhere brighter than 1 of 255; .*--mask-value"):
        read("run/b", SHAPE)


def test_run_lengths(tmp_path, masks):
    large = np.zeros((300, 200), bool)
    large[10:250, 20:180] = np.random.default_rng(1).random((240, 160)) < 0.5
    for mask in (*masks, large, np.zeros((4, 4), bool), np.ones((4, 4), bool)):
        counts = runs_of(mask)
        for form in (counts, text_of(counts), text_of(counts).encode()):
            assert np.array_equal(decode_rle({"size": mask.shape, "counts": form}, mask.shape), mask)
    # one from the format's reference implementation: a 3 x 3 mask with the middle column set
    assert decode_rle({"size": [3, 3], "counts": "333"}, (3, 3)).tolist() == [[False, True, False]] * 3
    entries = [None, *({"size": [H, W], "counts": text_of(runs_of(mask))} for mask in masks[1:])]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.json").write_text(json.dumps(entries))
    found = open_masks(tmp_path, "segmentation")("run/a", SHAPE)
    assert not found[0].any() and np.array_equal(found[1:], masks[1:])
    for broken in ("3", "33", "3~3", "333l"):
        with pytest.raises(ValueError):
            decode_rle({"size": [3, 3], "counts": broken}, (3, 3))


@pytest.mark.parametrize("compress", [True, False])
def test_puppet_masks(tmp_path, masks, mat_file, compress):
    folder = tmp_path / "brush_hair" / "video"
    folder.mkdir(parents=True)
    array = masks.astype(np.uint8).transpose(1, 2, 0)
    (folder / "puppet_mask.mat").write_bytes(mat_file("part_mask", array, compress))
    assert np.array_equal(open_masks(tmp_path, "jhmdb")("brush_hair/video", SHAPE), masks)
    (folder / "puppet_mask.mat").write_bytes(mat_file("abc", array, compress))
    assert list(read_mat(folder / "puppet_mask.mat")) == ["abc"]
    data = mat_file("part_mask", array, compress)
    for broken in (b"", data[:100], data[:-20], data[:128] + b"\x0f\0\0\0\x04\0\0\0abcd"):
        (folder / "puppet_mask.mat").write_bytes(broken)
        with pytest.raises(InputError, match="brush_hair/video are not readable"):
            open_masks(tmp_path, "jhmdb")("brush_hair/video", SHAPE)


@pytest.mark.parametrize("compress", [True, False])
def test_a_damaged_matlab_file_is_read_or_is_a_value_error(tmp_path, masks, mat_file, compress):
    """scipy's reader ends the process on one of 150 of such files, the reason for a reader of our own."""
    good = mat_file("part_mask", masks.astype(np.uint8).transpose(1, 2, 0), compress)
    path, rng = tmp_path / "puppet_mask.mat", np.random.default_rng(0)
    refused = 0
    if not compress:
        path.write_bytes(good[:136] + b"\x06\x00\x02\x00" + good[140:])
        with pytest.raises(ValueError, match="without flags"):
            read_mat(path)
    for _ in range(400):
        data = bytearray(good)
        if compress:  # change the array below its zlib stream, whose checksum would refuse any change
            array = bytearray(zlib.decompress(good[136:]))
            array[rng.integers(min(len(array), 80))] = rng.integers(256)
            stream = zlib.compress(bytes(array))
            data = good[:132] + len(stream).to_bytes(4, "little") + stream
        else:
            data[rng.integers(120, min(len(good), 200))] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_mat(path)
        except ValueError:
            refused += 1
    assert refused > 50


def test_boxes(tmp_path):
    expected = np.zeros(SHAPE, bool)
    expected[1, 2:5, 1:4] = True
    both = expected.copy()
    both[1, 0:2, 6:8] = True
    (tmp_path / "boxes.csv").write_text(
        "video,frame,left,top,right,bottom\nrun/a,1,1,2,4,5\nrun/a,1,6,-3,99,2\nrun/a,7,0,0,8,6\n"
    )
    boxes = {"run/a": {"1": [[1, 2, 4, 5], [6, -3, 99, 2]]}}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    (tmp_path / "run" / "a").mkdir(parents=True)
    (tmp_path / "run" / "a" / "00002.txt").write_text("3 1 2 4 5\n3 6 -3 99 2\n")
    for path in (tmp_path / "boxes.csv", tmp_path / "boxes.json", tmp_path):
        assert np.array_equal(open_masks(path, "boxes")("run/a", SHAPE), both), path
        assert np.array_equal(open_masks(path, "boxes", first_box_only=True)("run/a", SHAPE), expected)
        assert open_masks(path, "boxes")("run/b", SHAPE) is None
    (tmp_path / "wrong.csv").write_text("video,frame\na,1\n")
    with pytest.raises(InputError, match=r"wrong\.csv: not readable as boxes"):
        open_masks(tmp_path / "wrong.csv", "boxes")
    with pytest.raises(InputError, match="no such file"):
        open_masks(tmp_path / "none", "boxes")
    with pytest.raises(InputError, match="mask_from is 'pickle'"):
        open_masks(tmp_path, "pickle")


def test_pickles_of_ucf101_24(tmp_path):
    """Both layouts as Python 2 and old versions of NumPy wrote them; one-byte boxes whose right side exceeds 255."""
    tube = {"label": 0, "sf": 2, "ef": 4, "boxes": np.array([[201, 11, 100, 20], [1, 1, 255, 8]], np.uint8)}
    second = tube | {"sf": np.uint8(3), "boxes": np.array([[5, 6, 7, 8]], np.uint16)}
    corrected = {np.str_("A/v_a"): {"annotations": [tube, second], "numf": np.uint8(9), "label": 0}}
    act = {
        "gttubes": {"A/v_a": {0: [np.array([[3, 200, 10, 300, 30], [4, 0, 0, 255, 8]], np.float32)]}},
        "labels": ["A"],
    }
    expected = {2: [(200, 10, 300, 30)], 3: [(0, 0, 255, 8), (4, 5, 11, 13)]}
    for name, content in (("plain", corrected), ("named", {"db": corrected, "classes": ["A"]}), ("act", act)):
        for protocol in (2, 3):
            written = pickle.dumps(content, protocol).replace(b"numpy._core", b"numpy.core")
            (tmp_path / f"{name}.pkl").write_bytes(written)
            read = read_boxes(tmp_path / f"{name}.pkl")
            found = read("A/v_a")
            assert found == (expected if name != "act" else {2: expected[2], 3: expected[3][:1]}), name
            assert read("A/v_b") is None


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_a_pickle_can_run_nothing_and_broken_ones_are_named(tmp_path):
    file = tmp_path / "a.pkl"
    short = {"A/v_a": {"annotations": [{"sf": 0, "ef": 3, "boxes": np.ones((2, 4), np.uint8)}]}}
    bad = {
        "io.open": {"gttubes": Bomb(tmp_path / "marker")},
        "2 boxes for 3 frames": short,
        "TypeError|AttributeError": [1, 2],
        "KeyError: 'annotations'": {"A/v_a": {"boxes": []}},
    }
    for reason, content in bad.items():
        file.write_bytes(pickle.dumps(content, 2))
        with pytest.raises(InputError, match=rf"a\.pkl: not readable as boxes .*({reason})"):
            read_boxes(file)
    for broken in (b"", pickle.dumps(short, 2)[:-30], b"no pickle"):
        file.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.pkl: not readable as boxes"):
            read_boxes(file)
    assert not (tmp_path / "marker").exists()


def test_types_of_numpy_in_a_pickle_cannot_touch_memory(tmp_path):
    """Type confusion: an object field without its flag, an offset past the bytes, an object code; sizes out of the air;
    a change of what is called."""
    dtype = b"cnumpy\ndtype\n(%bK\x00K\x01tR"
    attacks = {
        "void": dtype % b"U\x02V8"
        + b"(K\x03U\x01|NU\x01f\x85}U\x01f"
        + dtype % b"U\x02O8"
        + b"K\x00\x86sK\x08K\x01K\x00tb",
        "object": b"cnumpy.core.multiarray\nscalar\n(" + dtype % b"U\x02O8" + b"U\x08AAAAAAAAtR",
        "huge": b"cnumpy\nndarray\n(\x8a\x05\x00\x00\x00\x00\x20\x85tR",
        "memo": b"Kar\xff\xff\xff\xff",
        "change": b"cnumpy\nndarray\n}U\x05_makeNsb",
        "slots": b"cnumpy\nndarray\nN}U\x05_makeNs\x86b",
    }
    for name, attack in attacks.items():
        (tmp_path / "a.pkl").write_bytes(b"\x80\x02}U\x07gttubes" + attack + b"s.")
        with pytest.raises(InputError, match="not readable as boxes"):
            read_boxes(tmp_path / "a.pkl")
            pytest.fail(name)
    # one list named many times: small in the file, endless when walked
    shared = [[0, 0, 1, 1, 1]] * 1000
    for _ in range(3):
        shared = [shared] * 1000
    for content in (shared, {"a": {0: shared}}):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"gttubes": content}, 2))
        with pytest.raises(InputError, match="not readable as boxes"):
            read_boxes(tmp_path / "a.pkl")


@pytest.mark.slow
def test_a_small_file_of_masks_cannot_fill_the_memory(tmp_path):
    video = "run/a"
    (tmp_path / "run").mkdir()
    for entries in (
        [{"size": [100000, 100000], "counts": [0, 10**10]}] * SHAPE[0],
        [{"size": SHAPE[1:], "counts": [2**62, 2**62, 2**62, 2**62]}] * SHAPE[0],
        [{"size": SHAPE[1:], "counts": "o" * 100000}] * SHAPE[0],
        [None] * 10**6,
        5,
    ):
        (tmp_path / f"{video}.json").write_text(json.dumps(entries))
        with pytest.raises(InputError, match="not readable"):
            open_masks(tmp_path, "segmentation")(video, SHAPE)
    (tmp_path / f"{video}.json").write_text("[" * 100000)
    with pytest.raises(InputError, match="not readable"):
        open_masks(tmp_path, "segmentation")(video, SHAPE)
    Image.new("1", (20000, 20000)).save(tmp_path / f"{video}.png")
    with pytest.raises(InputError, match="not readable"):
        open_masks(tmp_path, "segmentation")(video, SHAPE)
    (tmp_path / "inf.csv").write_text("video,frame,left,top,right,bottom\na,0,0,0,inf,1\n")
    with pytest.raises(InputError, match="not finite"):
        open_masks(tmp_path / "inf.csv", "boxes")


def test_class_numbers_and_a_second_kind_of_masks(tmp_path):
    rng = np.random.default_rng(3)
    numbers, salient = rng.choice([0, 60, 200], SHAPE).astype(np.uint8), rng.random(SHAPE) < 0.5
    for name in ("people", "palette", "salient"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.hstack(list(numbers))).save(tmp_path / "people" / "a.png")
    indexed = Image.fromarray(np.hstack(list(numbers)), "P")
    indexed.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
    indexed.save(tmp_path / "palette" / "a.png")
    Image.fromarray(np.hstack(list(salient)).astype(np.uint8) * 255).save(tmp_path / "salient" / "a.png")
    Image.fromarray(np.hstack(list(numbers))).save(tmp_path / "people" / "b.png")
    people, palette = (open_masks(tmp_path / name, "segmentation", value=60) for name in ("people", "palette"))
    assert np.array_equal(people("a", SHAPE), numbers == 60) and np.array_equal(palette("a", SHAPE), numbers == 60)
    both = either(people, open_masks(tmp_path / "salient", "segmentation"))
    assert np.array_equal(both("a", SHAPE), (numbers == 60) | salient) and both("b", SHAPE) is None
