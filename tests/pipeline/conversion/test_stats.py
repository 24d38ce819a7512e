"""The page about a dataset: self-contained, with every count and a picture a sample, and safe with hostile names."""

import re

from unstill.pipeline.conversion.convert import convert


def test_page_tells_what_happened(converted):
    page = (converted / "stats.html").read_text()
    assert "8 videos planned = 7 converted + 1 quarantined" in page
    assert page.count("data:image/jpeg;base64,/9j/") == 7 and "skip_006" in page
    assert "hop/page.mp4" in page and "unreadable" in page and "48×32" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_names_from_the_source_are_escaped(tmp_path, convert_config, video):
    folder = tmp_path / "source" / "<script>alert(1)</script>".replace("/", "-")
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(video(frames=4).mp4)
    (folder / "<img src=x onerror=alert(1)>.mp4").write_text("<b>no video</b>")
    convert(convert_config(tmp_path / "source", tmp_path / "out"))
    page = (tmp_path / "out" / "stats.html").read_text()
    assert "<script>" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
