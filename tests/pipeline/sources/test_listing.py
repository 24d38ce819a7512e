"""Every layout of video datasets: what is found, what is missing, and which class each video gets."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.shards.index import SampleIndex
from unstill.pipeline.sources.layouts import find_videos, list_source


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"video")
    return root


def found(root: Path, **options) -> dict[str, str]:
    listing = find_videos(ConvertConfig(source=root, out=root / "out", **options))
    return {video.path: listing.classes[video.label] for video in listing.videos}


def refused(root: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        list_source(ConvertConfig(source=root, out=root / "out", **options))
    return str(caught.value)


KINETICS = """label,youtube_id,time_start,time_end,split
air drumming,-0aBcDeFgHi,1,11,train
"massaging person's head",AAAAAAAAAAA,20,30,train
air  drumming,BBBBBBBBBBB,0,10,train
zumba,CCCCCCCCCCC,5,15,train
zumba,DDDDDDDDDDD,5,15,val
air drumming,-0aBcDeFgHi,1,11,train
"""


def test_kinetics(tmp_path):
    root = tree(
        tmp_path / "k",
        "train/-0aBcDeFgHi_000001_000011.mp4",
        "train/massaging_persons_head/AAAAAAAAAAA.mkv",
        "BBBBBBBBBBB_000000_000010.mp4",
        "val/DDDDDDDDDDD_000005_000015.mp4",
        "stray.mp4",
    )
    (tmp_path / "train.csv").write_text(KINETICS)
    config = ConvertConfig(source=root, out=tmp_path / "out", labels=tmp_path / "train.csv", split="train")
    listing = find_videos(config)
    assert listing.classes == ("air drumming", "massaging person's head", "zumba")
    assert [(v.path, v.label, v.start, v.end) for v in listing.videos] == [
        ("BBBBBBBBBBB_000000_000010.mp4", 0, None, None),  # named after its part: cut already
        ("train/-0aBcDeFgHi_000001_000011.mp4", 0, None, None),
        ("train/massaging_persons_head/AAAAAAAAAAA.mkv", 1, 20.0, 30.0),
    ]
    assert [v.path for v in listing.missing] == ["CCCCCCCCCCC_000005_000015"]
    assert [v.path for v in listing.duplicates] == ["train/-0aBcDeFgHi_000001_000011.mp4"]
    assert listing.unlisted == 2
    assert "'zumba'" in refused(root, labels=tmp_path / "train.csv", split="train")
    (tmp_path / "ids.txt").write_text("BBBBBBBBBBB\nAAAAAAAAAAA\n")
    only = found(root, labels=tmp_path / "train.csv", only=tmp_path / "ids.txt")
    assert set(only.values()) == {"air drumming", "massaging person's head"} and len(only) == 2


def test_ucf101(tmp_path):
    root = tree(tmp_path / "u", "UCF-101/Archery/v_Archery_g01_c01.avi", "UCF-101/YoYo/v_YoYo_g01_c01.avi")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 YoYo\n2 Archery\n")
    (lists / "trainlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi 1\nArchery/v_Archery_g01_c01.avi 2\n")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\r\n")
    config = ConvertConfig(source=root, out=tmp_path / "o", labels=lists / "trainlist01.txt")
    assert find_videos(config).classes == ("YoYo", "Archery")
    assert found(root, labels=lists / "testlist01.txt") == {"UCF-101/Archery/v_Archery_g01_c01.avi": "Archery"}
    assert "name the list file" in refused(root, labels=lists / "trainlist01.txt", split="train")


def test_ucf_crime(tmp_path):
    names = ("Abuse/Abuse001_x264.mp4", "Training_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4")
    tests = ("Arrest/Arrest001_x264.mp4", "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4")
    root = tree(tmp_path / "u", *names, *tests)
    train, truth = tmp_path / "Anomaly_Train.txt", tmp_path / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt"
    train.write_text("\n".join(names) + " \n")
    assert found(root, labels=train) == dict(zip(names, ("Abuse", "Normal"), strict=True))
    truth.write_text(
        "Arrest001_x264.mp4  Arrest  1185  1485  -1  -1  \nNormal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n"
    )
    assert found(root, labels=truth) == dict(zip(tests, ("Arrest", "Normal"), strict=True))
    listing = find_videos(ConvertConfig(source=root, out=tmp_path / "o", labels=truth))
    assert all(video.start is None and video.end is None for video in listing.videos)  # the frames are no parts
    truth.write_text("Arrest001_x264.mp4  Arrest  1185  1485  -1  -1\nArrest/other.avi 3\n")
    assert "line 2 is 'Arrest/other.avi 3'" in refused(root, labels=truth)


def test_hmdb51_same_file_name_in_two_classes(tmp_path):
    root = tree(tmp_path / "h", "run/a.avi", "walk/a.avi", "walk/b.avi")
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "run_test_split1.txt").write_text("a.avi 1 \n")
    (splits / "walk_test_split1.txt").write_text("a.avi 1 \nb.avi 2 \nc.avi 0 \n")
    (splits / "walk_test_split2.txt").write_text("a.avi 2 \n")
    assert found(root, labels=splits, split="train1") == {"run/a.avi": "run", "walk/a.avi": "walk"}
    assert found(root, labels=splits, split="test1") == {"walk/b.avi": "walk"}
    assert "train1 to train3" in refused(root, labels=splits, split="train")


def test_diving48(tmp_path):
    root = tree(tmp_path / "d", "rgb/_8Vy3dlHg2w_00000.mp4", "rgb/x_00001.mp4")
    entries = [{"vid_name": "_8Vy3dlHg2w_00000", "label": 1, "end_frame": 9}, {"vid_name": "x_00001", "label": 0}]
    (tmp_path / "Diving48_V2_train.json").write_text(json.dumps(entries))
    assert found(root, labels=tmp_path / "Diving48_V2_train.json")["rgb/x_00001.mp4"] == "0"
    (tmp_path / "Diving48_vocab.json").write_text(json.dumps([["Back", "15som"], ["Forward", "NoTwis"]]))
    assert found(root, labels=tmp_path / "Diving48_V2_train.json")["rgb/x_00001.mp4"] == "Back_15som"


@pytest.mark.parametrize(
    "text",
    [
        "path,label,start,end\na/x.mp4,jump,,\nb/y.mp4,run,1.5,2\n",
        "a/x.mp4,jump\nb/y.mp4,run,1.5,2\n",
        "./a/x,jump\r\ny.mp4,run,1.5,2\r\n",
        "label,path\njump,a/x.mp4\nrun,b/y.mp4\n",
        "a/x.mp4 jump\nb/y.mp4 run\n",
        "a/x.mp4\tjump\nb/y.mp4\trun\n",
    ],
)
def test_plain_lists(tmp_path, text):
    root = tree(tmp_path / "p", "a/x.mp4", "b/y.mp4")
    (tmp_path / "list.csv").write_text(text)
    assert found(root, labels=tmp_path / "list.csv") == {"a/x.mp4": "jump", "b/y.mp4": "run"}


def test_numbered_list_takes_its_names_from_a_file(tmp_path):
    root = tree(tmp_path / "p", "x y.mp4", "z.mp4")
    (tmp_path / "list.txt").write_text("x y.mp4 2\nz.mp4 0\n")
    (tmp_path / "names.txt").write_text("zero\none\ntwo\n")
    assert found(root, labels=tmp_path / "list.txt") == {"x y.mp4": "2", "z.mp4": "0"}
    named = found(root, labels=tmp_path / "list.txt", classes=tmp_path / "names.txt")
    assert named == {"x y.mp4": "two", "z.mp4": "zero"}
    (tmp_path / "list.txt").write_text("z.mp4 3\n")
    assert "class '3'" in refused(root, labels=tmp_path / "list.txt", classes=tmp_path / "names.txt")


def test_lists_that_make_no_sense(tmp_path):
    root = tree(tmp_path / "p", "x.mp4")
    path = tmp_path / "list.csv"
    for text, expected in [
        ("", "names no video"),
        ("x.mp4,jump,a,b\n", "start 'a'"),
        ("x.mp4,jump,3,2\n", "before it starts"),
        ("x.mp4,\n", "expected path,label"),
        ("nowhere.mp4,jump\n", "holds none of the 1 videos"),
        ("label,youtube_id,time_start,time_end\njump,short,1,2\n", "line 2"),
    ]:
        path.write_text(text)
        assert expected in refused(root, labels=path)
    assert "no such file" in refused(root, labels=tmp_path / "no.csv")
    assert "needs --labels" in refused(root, layout="kinetics")


def test_class_names_are_compared_without_punctuation(tmp_path):
    root = tree(tmp_path / "f", "Air Drumming/x.mp4", "zumba/y.mp4")
    (tmp_path / "names.txt").write_text("zumba\nair_drumming\n")
    names = found(root, classes=tmp_path / "names.txt")
    assert names == {"Air Drumming/x.mp4": "air_drumming", "zumba/y.mp4": "zumba"}
    (tmp_path / "names.txt").write_text("air drumming\nair_drumming\nzumba\n")
    assert "may be 'air drumming' or 'air_drumming'" in refused(root, classes=tmp_path / "names.txt")
    assert "is a folder; expected its dataset.json" in refused(root, classes=tmp_path)


def test_whether_a_kinetics_file_is_cut_its_name_says_and_not_its_length(tmp_path, convert_config, video):
    root = tmp_path / "k"
    root.mkdir()
    (root / "AAAAAAAAAAA_000001_000003.mp4").write_bytes(video(frames=150, height=32, width=32).mp4)  # 5 s
    (root / "BBBBBBBBBBB.mp4").write_bytes(
        video(frames=75, height=32, width=32).mp4
    )  # 2.5 s: half a second of the part
    (root / "CCCCCCCCCCC.mp4").write_bytes(video(frames=60, height=32, width=32).mp4)  # 2 s: none of it
    rows = ["label,youtube_id,time_start,time_end", "x,AAAAAAAAAAA,1,3", "x,BBBBBBBBBBB,2,4", "x,CCCCCCCCCCC,9,11"]
    (tmp_path / "t.csv").write_text("\n".join([*rows, "x,DDDDDDDDDDD,1,3"]))
    report = convert(convert_config(root, tmp_path / "out", labels=tmp_path / "t.csv"))
    assert (report.planned, report.converted, report.reasons) == (4, 2, {"missing": 1, "no_frames": 1})
    index = SampleIndex.load(tmp_path / "out")
    assert dict(zip(index.keys(), index.frames.tolist(), strict=True)) == {
        "AAAAAAAAAAA_000001_000003": 150,
        "BBBBBBBBBBB_2_4": 15,
    }
    assert "begins at 9 s, it ends at 2.00 s" in (tmp_path / "out" / "quarantine.csv").read_text()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_existing_webdataset_tars(tmp_path, convert_config, video):
    root = tmp_path / "wds"
    root.mkdir()
    with tarfile.open(root / "000.tar", "w") as tar:
        add(tar, "./one.mp4", video(frames=5, seed=1).mp4)
        add(tar, "./one.cls", b"jump")
        add(tar, "sub/two.json", json.dumps({"label": "run"}).encode())
        add(tar, "sub/two.mp4", video(frames=6, seed=2).mp4)
        add(tar, "three.txt", b"no video")
    report = convert(convert_config(root, tmp_path / "out"))
    assert (report.converted, report.quarantined) == (2, 0)
    index = SampleIndex.load(tmp_path / "out")
    rows = dict(zip(index.keys(), zip(index.label.tolist(), index.frames.tolist(), strict=True), strict=True))
    assert rows == {"one": (0, 5), "sub_two": (1, 6)} and index.classes == ("jump", "run")
    (root / "001.tar").write_bytes((root / "000.tar").read_bytes()[:2000])
    assert "001.tar" in refused(root) and "byte" in refused(root)


def test_converting_our_own_shards_again(tmp_path, convert_config, converted):
    report = convert(convert_config(converted / "shards", tmp_path / "out", fps=15))
    assert report.converted == 7
    index, before = SampleIndex.load(tmp_path / "out"), SampleIndex.load(converted)
    assert sorted(index.keys()) == sorted(before.keys())
    labels = dict(zip(before.keys(), before.label.tolist(), strict=True))
    assert all(labels[key] == index.label[row] for row, key in enumerate(index.keys()))
