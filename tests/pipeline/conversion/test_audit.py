"""The report before any work: every kind of finding is named, and a shrunken label set is refused."""

import io
import shutil

from rich.console import Console

from unstill.pipeline.conversion.audit import AuditConfig, audit, render


def printed(report) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(render(report))
    return console.file.getvalue()


def test_audit_of_a_list(tmp_path, class_folders):
    root = tmp_path / "source"
    shutil.copytree(class_folders, root)
    shutil.copy(root / "skip" / "000.mp4", root / "skip" / "copy.mp4")
    lines = [
        "skip/000.mp4,skip",
        "skip/copy.mp4,skip",
        "hop/page.mp4,hop",
        "hop/gone.mp4,hop",
        "skip/000.mp4,hop",
        "a,jump",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    report = audit(AuditConfig(source=root, labels=tmp_path / "list.csv", workers=1))
    assert [failure.reason for failure in report.unreadable] == ["unreadable"]
    assert [video.path for video in report.listing.missing] == ["a", "hop/gone.mp4"]
    assert [video.path for video in report.listing.duplicates] == ["skip/000.mp4"]
    assert report.same_content == (("skip/000.mp4", "skip/copy.mp4"),)
    assert report.headers[0]["codec"] == "vp9" and report.headers[0]["seconds"] > 0.1
    assert "'jump'" in report.problem
    text = printed(report)
    for expected in ("3 found, 2 missing, 6 not listed", "64x48 (2)", "vp9 (2)", "hop/gone.mp4", "refuse", "jump"):
        assert expected in text
    assert (
        audit(AuditConfig(source=root, labels=tmp_path / "list.csv", allow_missing=True, headers=False)).problem == ""
    )


def test_audit_of_class_folders_and_of_shards(class_folders, converted):
    report = audit(AuditConfig(source=class_folders, workers=1))
    assert (len(report.listing.videos), len(report.headers), report.problem) == (8, 7, "")
    report = audit(AuditConfig(source=converted / "shards", workers=1))
    assert len(report.headers) == 7 and {header["width"] for header in report.headers} == {48}
    assert "2 (3 to 4 videos" in printed(report)
