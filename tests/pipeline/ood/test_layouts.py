"""The benchmark from datasets in the layouts that they are downloaded in."""

import av
import numpy as np
import pytest

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.ood.build import OodConfig, build
from unstill.pipeline.shards.index import SampleIndex

T, H, W = 6, 48, 64


def write_video(path, frames=T):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        for t in range(frames):
            picture = np.full((H, W, 3), 90, np.uint8)
            picture[16:32, 4 * (t % 8) : 4 * (t % 8) + 16] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.slow
def test_hmdb51_with_puppet_masks(tmp_path, mat_file):
    for label in ("brush_hair", "catch", "wave"):
        lists = []
        for k, flag in enumerate((1, 2, 2)):
            name = f"{label}_{k}_u_cm_np1"
            write_video(tmp_path / "hmdb51_org" / label / f"{name}.avi")
            lists.append(f"{name}.avi {flag} ")
            folder = tmp_path / "joints" / "puppet_mask" / label / name
            if label != "wave":  # JHMDB has 21 of the 51 classes, and not all their videos
                folder.mkdir(parents=True)
                masks = np.zeros((H, W, T - 1), np.uint8)
                masks[16:32, 10:30] = 1
                (folder / "puppet_mask.mat").write_bytes(mat_file("part_mask", masks))
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / "splits" / f"{label}_test_split1.txt").write_text("\n".join(lists))
    config = OodConfig(
        source=tmp_path / "hmdb51_org",
        labels=tmp_path / "splits",
        split="test1",
        masks=tmp_path / "joints" / "puppet_mask",
        mask_from="jhmdb",
        out=tmp_path / "out",
        per_video=2,
        workers=1,
    )
    # the clip of HMDB51 that one of JHMDB was cut out of
    write_video(tmp_path / "hmdb51_org" / "catch" / "catch_1_u_cm_np1.avi", 4 * T)
    report = build(config)
    assert report.composites == 6 and set(report.left_out) == {
        *(f"wave/wave_{k}_u_cm_np1.avi" for k in (1, 2)),
        "catch/catch_1_u_cm_np1.avi",
    }
    assert report.left_out["wave/wave_1_u_cm_np1.avi"] == "no masks"
    assert "5 masks of catch/catch_1_u_cm_np1, which has 24 frames; give the videos of JHMDB" in " ".join(
        report.left_out.values()
    )
    # 51-way labels stay: the class list of the whole dataset is given to the converter
    (tmp_path / "classes.txt").write_text("brush_hair\ncatch\nwave\n")
    options = {"codec": "vp9", "short_side": 48, "workers": 1, "allow_missing": True}
    convert(ConvertConfig(source=report.videos, out=tmp_path / "shards", classes=tmp_path / "classes.txt", **options))
    index = SampleIndex.load(tmp_path / "shards")
    assert index.classes == ("brush_hair", "catch", "wave") and len(index) == 6
    assert set(np.asarray(index.frames).tolist()) == {T - 1}  # as many frames as masks
    assert "catch_catch_2_u_cm_np1__1" in index.keys()


def test_ucf101_with_boxes(tmp_path):
    for label in ("Basketball", "Biking"):
        name = f"v_{label}_g01_c01"
        write_video(tmp_path / "UCF-101" / label / f"{name}.avi")
        folder = tmp_path / "labels" / label / name
        folder.mkdir(parents=True)
        for t in range(2, T):  # frames are named from 1; nobody in the first
            (folder / f"{t:05}.txt").write_text("1 10 16 30 32\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "classInd.txt").write_text("1 Basketball\n2 Biking\n")
    names = [f"{label}/v_{label}_g01_c01.avi" for label in ("Basketball", "Biking")]
    (tmp_path / "lists" / "testlist01.txt").write_text("\n".join(names))
    config = OodConfig(
        source=tmp_path / "UCF-101",
        labels=tmp_path / "lists" / "testlist01.txt",
        masks=tmp_path / "labels",
        mask_from="boxes",
        out=tmp_path / "out",
        kind="conflfg",
        per_video=1,
        workers=1,
    )
    report = build(config)
    assert report.composites == 2
    assert "Basketball_v_Basketball_g01_c01__0,Biking" in (tmp_path / "out" / "truth.csv").read_text()


def test_kinetics_clips_must_be_cut(tmp_path):
    rows = [
        "label,youtube_id,time_start,time_end,split",
        "abseiling,-3B32lodo2M,10,11,val",
        "zumba,-5ms-cGtnwE,3,4,val",
    ]
    (tmp_path / "val.csv").write_text("\n".join(rows))
    write_video(tmp_path / "val" / "abseiling" / "-3B32lodo2M_000010_000011.mp4", 10)
    write_video(tmp_path / "val" / "zumba" / "-5ms-cGtnwE.mp4", 60)
    for label, name in (("abseiling", "-3B32lodo2M_000010_000011"), ("zumba", "-5ms-cGtnwE")):
        (tmp_path / "masks" / label / name).mkdir(parents=True)
        (tmp_path / "masks" / label / name / "00001.txt").write_text("0 0 0 20 20\n")
    config = OodConfig(
        source=tmp_path / "val",
        labels=tmp_path / "val.csv",
        masks=tmp_path / "masks",
        mask_from="boxes",
        out=tmp_path / "out",
        per_video=1,
    )
    report = build(config)
    assert report.composites == 1
    assert report.left_out == {"zumba/-5ms-cGtnwE.mp4": "the list names the part from 3 s to 4 s; cut it out first"}
    with pytest.raises(InputError, match="made with per_video 1"):
        build(OodConfig(**{**vars(config), "per_video": 2}))
