"""Mask files of every kind, made here."""

import json

import numpy as np
import pytest
from PIL import Image

from unstill.pipeline.errors import InputError
from unstill.pipeline.ood.coco_rle import decode_rle
from unstill.pipeline.ood.masks import either, open_masks
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


def test_run_lengths(tmp_path, masks):
    large = np.zeros((300, 200), bool)
    large[10:250, 20:180] = np.random.default_rng(1).random((240, 160)) < 0.5
    for mask in (*masks, large, np.zeros((4, 4), bool), np.ones((4, 4), bool)):
        counts = runs_of(mask)
        for form in (counts, text_of(counts), text_of(counts).encode()):
            assert np.array_equal(decode_rle({"size": mask.shape, "counts": form}), mask)
    # one from the format's reference implementation: a 3 x 3 mask with the middle column set
    assert decode_rle({"size": [3, 3], "counts": "333"}).tolist() == [[False, True, False]] * 3
    entries = [None, *({"size": [H, W], "counts": text_of(runs_of(mask))} for mask in masks[1:])]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.json").write_text(json.dumps(entries))
    found = open_masks(tmp_path, "segmentation")("run/a", SHAPE)
    assert not found[0].any() and np.array_equal(found[1:], masks[1:])
    for broken in ("3", "33", "3~3", "333l"):
        with pytest.raises(ValueError):
            decode_rle({"size": [3, 3], "counts": broken})


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
