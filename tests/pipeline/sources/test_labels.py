"""No guess decides a label, and no file of a source is passed over without a word."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from unstill.pipeline.conversion.audit import AuditConfig, audit
from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.sources.layouts import find_videos
from unstill.pipeline.sources.listing import Listing, class_key


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"video")
    return root


def listed(root: Path, text: str | bytes | None = None, name="list.csv", **options) -> Listing:
    if text is not None:
        path = root.parent / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        options["labels"] = path
    return find_videos(ConvertConfig(source=root, out=root.parent / "out", **options))


def names(listing: Listing) -> dict[str, str]:
    return {video.path: listing.classes[video.label] for video in listing.videos}


def refused(*arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        listed(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_video_is_not_replaced_by_another_of_its_name(tmp_path):
    root = tree(tmp_path / "v", "a/002.mp4", "b/001.mp4", "b/002.mp4", "deep/c/003.mp4")
    listing = listed(root, "a/001.mp4,a\na/002.mp4,a\nb/001.mp4,b\n/data/x/deep/c/003.mp4,c\nc/003.avi,c\nz/002,a\n")
    assert names(listing) == {"a/002.mp4": "a", "b/001.mp4": "b", "deep/c/003.mp4": "c"}
    assert [(v.path, v.candidates) for v in listing.missing] == [("a/001.mp4", ()), ("z/002", ())]
    assert [v.path for v in listing.duplicates] == ["deep/c/003.mp4"]  # c/003 is its end


def test_a_name_that_may_be_several_files_is_refused_with_all_of_them(tmp_path, video, convert_config):
    root = tree(tmp_path / "v", "a/001.mp4", "b/001.mp4", "b/001.avi")
    (root / "a" / "1.mp4").write_bytes(video(frames=3).mp4)
    listing = listed(root, "001.mp4,a\nb/001,b\nb/001.avi,b\n1.mp4,a\n")
    assert names(listing) == {"b/001.avi": "b", "a/1.mp4": "a"}
    assert {v.path: v.candidates for v in listing.missing} == {
        "001.mp4": ("a/001.mp4", "b/001.mp4"),
        "b/001": ("b/001.avi", "b/001.mp4"),
    }
    report = convert(convert_config(root, tmp_path / "out", labels=tmp_path / "list.csv"))
    assert report.reasons == {"ambiguous": 2, "unreadable": 1}
    assert "may be a/001.mp4 or b/001.mp4" in (tmp_path / "out" / "quarantine.csv").read_text()


def test_class_names_that_are_numbers_are_names(tmp_path):
    root = tree(tmp_path / "v", *(f"x{n}.mp4" for n in range(12)))
    classes = tmp_path / "names.json"
    classes.write_text(json.dumps({"classes": sorted(map(str, range(12)))}))  # 0 1 10 11 2 ...: as folders sort
    rows = "".join(f"x{n}.mp4,{n}\n" for n in range(12))
    assert names(listed(root, rows, classes=classes)) == {f"x{n}.mp4": str(n) for n in range(12)}
    classes.write_text(json.dumps({"classes": ["7", "walk"]}))
    assert "'0' is not among the 2 classes" in refused(root, rows, classes=classes)


def test_tars_number_their_classes_alike(tmp_path):
    root = tmp_path / "t"
    root.mkdir()
    write_tar(root / "0.tar", [("a.mp4", b"v"), ("a.cls", b"2"), ("b.mp4", b"v"), ("b.cls", b"10")])
    classes = tmp_path / "names.txt"
    classes.write_text("10\n2\n")
    listing = listed(root, classes=classes)
    assert {v.name: listing.classes[v.label] for v in listing.videos} == {"a.mp4": "2", "b.mp4": "10"}
    write_tar(root / "0.tar", [("a.mp4", b"v"), ("a.cls", b"9000000001")])
    assert "class number 9000000001, expected less than 100,000" in refused(root)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("C", "C++"),
        ("C", "C#"),
        ("-1", "1"),
        ("Air drumming", "air_drumming"),
        ("कि", "का"),  # letters with other marks
        ("straße", "strasse"),
        ("→", "←"),
    ],
)
def test_two_names_of_one_list_stay_two_classes(tmp_path, first, second):
    root = tree(tmp_path / "v", "1.mp4", "2.mp4")
    listing = listed(root, f"1.mp4,{first}\n2.mp4,{second}\n")
    assert names(listing) == {"1.mp4": first, "2.mp4": second}


def test_one_name_in_two_encodings_is_one_class(tmp_path):
    root = tree(tmp_path / "v", "1.mp4", "2.mp4")
    listing = listed(root, "1.mp4,caf\u00e9\n2.mp4,cafe\u0301\n")
    assert listing.classes == ("caf\u00e9",) and len(listing.videos) == 2
    assert class_key("cafe\u0301") == class_key("Caf\u00e9") and class_key("Air-Drumming") == class_key("air drumming")


def test_an_exact_class_name_wins_over_a_similar_one(tmp_path):
    root = tree(tmp_path / "v", "1.mp4", "2.mp4", "3.mp4")
    classes = tmp_path / "names.txt"
    classes.write_text("air_drumming\nair drumming\nzumba\n")
    assert names(listed(root, "1.mp4,air drumming\n2.mp4,Zumba\n", classes=classes)) == {
        "1.mp4": "air drumming",
        "2.mp4": "zumba",
    }
    assert "'Air-drumming' may be 'air_drumming' or 'air drumming'" in refused(
        root, "3.mp4,Air-drumming\n", classes=classes
    )


BOM = "\ufeff"


def test_a_byte_order_mark_belongs_to_no_entry(tmp_path):
    root = tree(tmp_path / "v", "a/001.mp4", "b/002.mp4")
    for name, text in (("only.txt", "001\r\n002\r\n"), ("names.txt", "a\r\nb\r\n")):
        (tmp_path / name).write_text(BOM + text, encoding="utf-8")
    assert len(names(listed(root, only=tmp_path / "only.txt", classes=tmp_path / "names.txt"))) == 2
    assert len(names(listed(root, f"{BOM}a/001.mp4,a\r\nb/002.mp4,b\r\n"))) == 2
    template = [{"id": "001", "template": "Doing [x]"}]
    assert len(names(listed(root, BOM + json.dumps(template), "train.json"))) == 1


def test_a_class_number_has_a_limit(tmp_path):
    root = tree(tmp_path / "v", "1.mp4", "2.mp4")
    assert "class number 9000000001, expected less than 100,000" in refused(root, "1.mp4,9000000001\n2.mp4,3\n")


def write_tar(path: Path, members: list[tuple[str, bytes]], form=tarfile.GNU_FORMAT) -> None:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_tars_are_read(tmp_path, form):
    root, long = tmp_path / "t", "folder/" + "long_name_ä_" * 20
    root.mkdir()
    members = [("s.mp4", b"v"), ("s.cls", b"0"), (f"{long}.mp4", b"vv"), (f"{long}.cls", b"1")]
    write_tar(root / "0.tar", members, form)
    assert {v.name: (v.label, v.length) for v in listed(root).videos} == {"s.mp4": (0, 1), f"{long}.mp4": (1, 2)}


def test_a_sample_with_two_members_of_one_name_or_two_videos_is_refused(tmp_path):
    root = tmp_path / "t"
    root.mkdir()
    write_tar(root / "0.tar", [("d.mp4", b"v"), ("d.cls", b"0"), ("d.mp4", b"w"), ("d.cls", b"1")])
    assert "sample 'd' has two members called 'd.mp4'" in refused(root)
    write_tar(root / "0.tar", [("d.mp4", b"v"), ("d.cls", b"0"), ("d.webm", b"w")])
    assert "sample 'd' has two videos, d.mp4 and d.webm" in refused(root)


@pytest.mark.slow
def test_a_large_member_costs_itself_alone(tmp_path, convert_config, video):
    root = tmp_path / "t"
    root.mkdir()
    with open(root / "big.mp4", "wb") as file:
        file.truncate(300 << 20)
    (root / "ok.mp4").write_bytes(video(frames=3).mp4)
    with tarfile.open(root / "0.tar", "w") as tar:
        for name in ("big", "ok"):
            tar.add(root / f"{name}.mp4", f"{name}.mp4")
            info = tarfile.TarInfo(f"{name}.cls")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"0"))
            (root / f"{name}.mp4").unlink()
    report = convert(convert_config(root, tmp_path / "out", max_file_mb=100.0))
    assert (report.converted, report.reasons) == (1, {"too_large": 1})


def test_every_file_is_a_video_or_counted(tmp_path, capsys):
    root = tree(
        tmp_path / "v", "a/1.mp4", "b/2.divx", "stray.mp4", "a/note.txt", "b/3.gif", "b/4.y4m", "a/.5.mp4", "b/6"
    )
    tree(tmp_path, "disk/7.mp4", "disk/sub/8.mkv")
    os.symlink(tmp_path / "disk", root / "a" / "more")
    os.symlink(root / "a", root / "a" / "loop")
    os.symlink(root, root / "b" / "up")
    assert sorted(names(listed(root, follow_links=True))) == ["a/1.mp4", "a/more/7.mp4", "a/more/sub/8.mkv", "b/2.divx"]
    listing = listed(root)
    assert sorted(names(listing)) == ["a/1.mp4", "b/2.divx"]
    assert [video.path for video in listing.outside] == ["a/more/7.mp4", "a/more/sub/8.mkv"]
    assert {why: (count, first) for why, count, first in listing.overlooked} == {
        "in no class folder": (1, "stray.mp4"),
        "not a video by its name (.txt)": (1, "a/note.txt"),
        "not a video by its name (no suffix)": (1, "b/6"),
        "of a video format that is not read (.gif)": (1, "b/3.gif"),
        "of a video format that is not read (.y4m)": (1, "b/4.y4m"),
        "hidden (its name starts with a dot)": (1, "a/.5.mp4"),
        "a link to a folder that it lies in": (2, "a/loop"),
    }
    report = audit(AuditConfig(source=root, headers=False))
    assert report.listing.overlooked == listing.overlooked


@pytest.mark.slow
def test_links_that_leave_the_source_are_quarantined(tmp_path, video, convert_config):
    """A link in a stranger's folder can name any file of the user's."""
    private = tree(tmp_path / "private", "mine.mp4", "folder/more.mp4", "shard.tar")
    for path in private.rglob("*.mp4"):
        path.write_bytes(video(frames=3).mp4)
    root = tree(tmp_path / "v", "a/1.mp4", "b/2.mp4", "b/deep/3.mp4")
    for path in root.rglob("*.mp4"):
        path.write_bytes(video(frames=4).mp4)
    os.symlink(private / "mine.mp4", root / "a" / "file.mp4")
    os.symlink("../../private/folder", root / "a" / "folder")
    os.symlink("../b/deep", root / "a" / "inside")  # stays in the source
    os.symlink(root, tmp_path / "other")  # a source may itself be a link
    for source in (root, tmp_path / "other"):
        report = convert(convert_config(source, tmp_path / f"out of {source.name}"))
        assert (report.converted, report.reasons) == (4, {"outside": 2})
        rows = (tmp_path / f"out of {source.name}" / "quarantine.csv").read_text()
        assert "a/file.mp4" in rows and "a/folder/more.mp4" in rows and "--follow-links takes it" in rows
    report = convert(convert_config(root, tmp_path / "all", follow_links=True))
    assert (report.converted, report.reasons) == (6, {})
    with pytest.raises(InputError, match=r"begun with other settings .follow_links True, now None"):
        convert(convert_config(root, tmp_path / "all"))
    os.symlink(private / "shard.tar", root / "x.tar")
    with pytest.raises(InputError, match=r"holds no .tar files but 3 links that leave it .--follow-links"):
        listed(root, layout="webdataset")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "a/1.mp4 " + "9" * 5000, "a class number of 5,000 digits"),
        ("Diving48_V2_train.json", '[{"vid_name": "1", "label": 1e999}]', "cannot convert float infinity"),
        ("net.json", '{"database": {"1": {"annotations": [{"segment": [0, 1%s], "label": "x"}]}}}', "too large"),
        ("list.json", "[" * 200_000, "nested too deeply"),
        ("Diving48_V2_train.json", '[{"vid_name": "\\ud800", "label": 0}]', r"of class '0' is no UTF-8"),
        ("train.json", '[{"id": "1", "template": "x\\ud800"}]', r"is no UTF-8"),
        ("list.csv", "path,label\na/1.mp4" + ",x" * 200_000, "expected path,label"),
    ],
    ids=["digits", "infinity", "huge", "deep", "surrogate name", "surrogate class", "wide"],
)
def test_a_list_that_is_made_to_harm_is_one_short_line(tmp_path, name, text, message):
    said = refused(tree(tmp_path / "v", "a/1.mp4"), text.replace("%s", "0" * 400), name)
    assert message in said and len(said) < 1000


def test_parts_of_a_dataset_taken_for_classes_get_a_warning(tmp_path):
    root = tree(tmp_path / "v", "Train/walk/1.mp4", "val/walk/2.mp4")
    (warning,) = listed(root).warnings
    assert f"unstill convert {root}/Train OUT/Train" in warning
    assert listed(tree(tmp_path / "w", "train/1.mp4", "bus/2.mp4")).warnings == ()


def test_the_output_may_not_be_the_source(tmp_path):
    root = tree(tmp_path / "v", "a/1.mp4", "b/2.mp4")
    for out in (root, root / "a" / "out", root / "." / ".." / "v"):
        with pytest.raises(InputError, match="is or lies inside the source"):
            convert(ConvertConfig(source=root, out=out))
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]


KINETICS = "label,youtube_id,time_start,time_end,split\n"


@pytest.mark.parametrize(
    ("name", "text", "split", "expected"),
    [
        (
            "k.csv",
            KINETICS + "x,AAAAAAAAAAA,1,2,train\nx,BBBBBBBBBBB,1,2,validate\n",
            "val",
            "its splits are train, validate",
        ),
        ("k.csv", KINETICS + "x,AAAAAAAAAAA,1\n", None, "line 2 has no YouTube id with start and end"),
        ("k.csv", KINETICS + ",AAAAAAAAAAA,1,2,test\n", None, "line 2 has no label"),
        (
            "a.json",
            '{"database": {"x": {"subset": "training", "annotations": []}}}',
            "train",
            "its splits are training",
        ),
        ("a.json", '{"database": {"x": {"annotations": [{"label": "y", "segment": [3, 1]}]}}}', None, "video 'x'"),
        ("a.json", '{"videos": 3}', None, "no object called database"),
        ("a.json", '[{"id": "1"}]', None, "entry 1 has no id with a template"),
        ("a.json", "[{", None, "cannot be read as a list of videos"),
        ("l.csv", "\n\n1.mp4,\n", None, "line 3 is '1.mp4,'"),
        ("l.csv", b"1.mp4,\xff\xfe\n", None, "it is not UTF-8 at byte 6"),
    ],
)
def test_a_malformed_list_is_one_line_that_says_where(tmp_path, name, text, split, expected):
    assert expected in refused(tree(tmp_path / "v", "1.mp4"), text, name, split=split)


def test_a_malformed_hmdb51_split_says_where(tmp_path):
    root = tree(tmp_path / "v", "wave/x.avi")
    splits = tmp_path / "s"
    splits.mkdir()
    (splits / "wave_test_split1.txt").write_text("x.avi 1\n\ny.avi\n")
    assert "wave_test_split1.txt: line 3 is 'y.avi'" in refused(root, labels=splits, split="train1")
    assert "there are train1, test1" in refused(root, labels=splits, split="train2")


def test_something_something(tmp_path):
    root = tree(tmp_path / "v", "20bn/1.webm", "20bn/2.webm")
    entries = [
        {"id": "1", "label": "holding cup", "template": "Holding [something]", "placeholders": ["cup"]},
        {"id": "2", "label": "x", "template": "Moving [something] away from [something]", "placeholders": []},
    ]
    assert names(listed(root, json.dumps(entries), "train.json")) == {
        "20bn/1.webm": "Holding something",
        "20bn/2.webm": "Moving something away from something",
    }
    labels = {"Moving something away from something": "0", "Holding something": "1"}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert listed(root, json.dumps(entries), "train.json").classes == tuple(labels)


def test_lists_of_slowfast_and_mmaction2(tmp_path):
    """Space-separated, with a prefix that is not below the source, and commas in names."""
    root = tree(tmp_path / "v", "a b/x, y.mp4", "a b/z.mp4")
    text = "/home/me/k400/a b/x, y.mp4 1\n/home/me/k400/a b/z.mp4 0\n"
    assert names(listed(root, text)) == {"a b/x, y.mp4": "1", "a b/z.mp4": "0"}
    quoted = 'path,label\n"a b/x, y.mp4",one\na b/z.mp4,two\n'
    assert names(listed(root, quoted)) == {"a b/x, y.mp4": "one", "a b/z.mp4": "two"}


@pytest.mark.parametrize("header", ["filename,label", "File,Class", "label,video", "video_path,class_name,start,end"])
def test_headers_that_people_write(tmp_path, header):
    root = tree(tmp_path / "v", "1.mp4")
    row = "walk,1.mp4" if header.startswith("label") else "1.mp4,walk" + ",," * (header.count(",") > 1)
    assert names(listed(root, f"{header}\n{row}\n")) == {"1.mp4": "walk"}


def test_segments(tmp_path):
    root = tree(tmp_path / "v", "v_abc.mp4", "def.mkv")
    database = {
        "abc": {
            "subset": "validation",
            "annotations": [{"segment": [0.5, 2], "label": "Jump"}, {"segment": [3, 4.25], "label": "Run"}],
        },
        "def": {
            "subset": "testing",
            "class": "MakeTea",
            "start": 1,
            "end": 9,
            "annotation": [{"segment": [2, 3], "label": "pour"}],
        },
        "ghi": {"subset": "validation", "annotations": [{"segment": [1, 2], "label": "Run"}]},
    }
    text = json.dumps({"database": database, "version": "x"})
    listing = listed(root, text, "anet.json")
    assert [(v.path, listing.classes[v.label], v.start, v.end) for v in listing.videos] == [
        ("def.mkv", "MakeTea", 1.0, 9.0),
        ("v_abc.mp4", "Jump", 0.5, 2.0),
        ("v_abc.mp4", "Run", 3.0, 4.25),
    ]
    assert [v.path for v in listing.missing] == ["ghi"]
    assert len(listed(root, text, "anet.json", split="testing").videos) == 1
