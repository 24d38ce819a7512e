"""A folder of videos in, a dataset out: the same bytes every time, and every video accounted for."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unstill.pipeline.conversion.convert import convert
from unstill.pipeline.conversion.plan import assign_keys
from unstill.pipeline.errors import InputError
from unstill.pipeline.shards.fragments import fragment_table
from unstill.pipeline.shards.index import SampleIndex
from unstill.pipeline.sources.listing import SourceVideo
from unstill.trainer.evaluation.protocols import source_video


def contents(out: Path) -> dict[str, str]:
    """Hash of every file of a dataset; also proves that no partial file is left."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_index_points_at_every_video(converted):
    index = SampleIndex.load(converted)
    assert index.classes == ("hop", "skip")
    assert sorted(index.keys()) == [
        "hop_001",
        "hop_005",
        "hop_deep_003",
        "skip_000",
        "skip_002",
        "skip_004",
        "skip_006",
    ]
    for row, key in enumerate(index.keys()):
        tar = (converted / index.shard_names[index.shard[row]]).read_bytes()
        mp4 = tar[index.mp4_offset[row] :][: index.mp4_bytes[row]]
        init, offsets = fragment_table(mp4)
        first, last = index.fragment_row[row : row + 2]
        assert init == index.init_bytes[row] and offsets[1:].tolist() == index.fragment_end[first:last].tolist()
        assert index.frames[row] == 5 + int(key[-3:]) and index.gop[row] == 4 and index.fps_milli[row] == 30000
        assert index.label[row] == (0 if key.startswith("hop") else 1)
        assert (index.width[row], index.height[row]) == (48, 32)


def test_quarantine_names_the_video(converted):
    with open(converted / "quarantine.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["reason"]) == ("hop/page.mp4", "unreadable")


def test_three_workers_write_the_bytes_of_one(convert_config, class_folders, converted, tmp_path):
    convert(convert_config(class_folders, tmp_path / "again", workers=3))
    assert contents(tmp_path / "again") == contents(converted)


@pytest.mark.slow
def test_parts_of_the_job_merge_when_the_last_is_done(convert_config, class_folders, converted, tmp_path):
    out = tmp_path / "parts"
    assert not convert(convert_config(class_folders, out, shards="0:1")).complete
    assert not convert(convert_config(class_folders, out, shards="2:3")).complete
    assert not (out / "dataset.json").exists()
    assert convert(convert_config(class_folders, out, shards="1:2")).complete
    assert contents(out) == contents(converted)


def test_a_missing_shard_is_made_again(convert_config, class_folders, converted, tmp_path):
    out = tmp_path / "data"
    convert(convert_config(class_folders, out))
    (out / "shards" / "00001.tar").unlink()
    (out / "shards" / ".00001.tar.host.1.partial").write_bytes(b"of another machine")
    convert(convert_config(class_folders, out))
    (out / "shards" / ".00001.tar.host.1.partial").unlink()
    assert contents(out) == contents(converted)


def test_refusals_are_one_line_that_names_the_thing(convert_config, class_folders, converted, tmp_path):
    def refused(**changes) -> str:
        with pytest.raises(InputError) as caught:
            convert(convert_config(**{"source": class_folders, "out": tmp_path / "x", **changes}))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such folder" in refused(source=tmp_path / "nowhere")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.mp4").write_bytes(b"x")
    assert "no class folders" in refused(source=tmp_path / "flat")
    assert "short_side" in refused(short_side=4)
    assert "inside the source" in refused(out=class_folders / "out")
    assert "choose another OUT" in refused(out=converted, seed=1)
    vp9 = {"out": tmp_path / "vp9", "codec": "vp9"}
    convert(convert_config(class_folders, **vp9, quality=31, shards="0:0"))  # its plan says no quality
    assert "other settings (quality 31, now 33)" in refused(**vp9, shards="0:0")
    convert(convert_config(class_folders, **vp9, quality=31, shards="0:0"))
    assert "is a file" in refused(out=tmp_path / "flat" / "a.mp4")
    (tmp_path / "names.txt").write_text("hop\n")
    assert "'skip'" in refused(classes=tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("hop\nskip\njump\n")
    assert "'jump'" in refused(classes=tmp_path / "names.txt")
    assert "A:B" in refused(shards="3")


def test_new_files_in_the_source_are_not_lost_silently(convert_config, class_folders, tmp_path, video):
    source = tmp_path / "source"
    (source / "only").mkdir(parents=True)
    (source / "only" / "one.mp4").write_bytes(video(frames=4).mp4)  # a class with one video is enough
    assert convert(convert_config(source, tmp_path / "out")).converted == 1
    (source / "only" / "two.mp4").write_bytes(video(frames=4).mp4)
    with pytest.raises(InputError, match=r"1 videos were added .*only/two.mp4"):
        convert(convert_config(source, tmp_path / "out"))


def test_label_order_can_be_fixed_by_another_dataset(convert_config, class_folders, converted, tmp_path):
    (tmp_path / "names.txt").write_text("skip\nhop\nunused\n")
    first = convert_config(class_folders, tmp_path / "a", classes=tmp_path / "names.txt", allow_missing=True)
    convert(first)
    convert(convert_config(class_folders, tmp_path / "b", classes=tmp_path / "a" / "dataset.json", allow_missing=True))
    assert json.loads((tmp_path / "b" / "dataset.json").read_text())["classes"] == ["skip", "hop", "unused"]
    assert np.array_equal(SampleIndex.load(tmp_path / "a").label, SampleIndex.load(tmp_path / "b").label)


def test_keys_are_safe_unique_and_stable():
    paths = [
        "left/000012.mp4",
        "a b/ü.mp4",
        "a_b/_.mp4",
        "x/" + "y" * 200 + ".mp4",
        "n\nl/../e.mp4",
        "c/v.mp4",
        "c/v.avi",
    ]
    keys = assign_keys([SourceVideo(path, 0) for path in paths])
    assert keys[0] == "left_000012"
    assert len(set(keys)) == len(keys) and all(len(key) <= 90 for key in keys)
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for key in keys)
    parts = assign_keys([SourceVideo("v.mp4", 0, 1.0, 2.5), SourceVideo("v.mp4", 0, 2.5, None)])
    assert parts == ["v_1_2_5", "v_2_5_end"]
    # composites of one video must still show that they are: intervals are clustered by it
    long = [SourceVideo(f"c/{'z' * 120}{end}__{k}.mp4", 0) for end in "ab" for k in (0, 1, 12)]
    composites = assign_keys([*long, SourceVideo("c/v__1.mp4", 0), SourceVideo("c/v__1.avi", 0)])
    assert len(set(composites)) == 8 and all(len(key) <= 90 for key in composites)
    assert [key.rsplit("__", 1)[1] for key in composites] == ["0", "1", "12"] * 2 + ["1"] * 2
    assert [len({source_video(key) for key in part}) for part in (composites[:3], composites[:6])] == [1, 2]
    with pytest.raises(InputError, match="listed twice"):
        assign_keys([SourceVideo("v.mp4", 0), SourceVideo("v.mp4", 1)])


def test_codecs_of_other_libraries_are_no_tools_of_the_plan():
    """decord brings its own libvpx; a run begun beside it must go on without it, with the same bytes."""
    pytest.importorskip("decord")
    program = "{}from unstill.pipeline.conversion.plan import tool_versions; print(tool_versions())"
    with_it, without = (
        subprocess.run([sys.executable, "-c", program.format(first)], capture_output=True, text=True, check=True).stdout
        for first in ("import av, decord; ", "")
    )
    assert "vpx" in without and with_it == without
