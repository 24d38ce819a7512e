"""Videos of tests that only a GPU runs are of sizes that its decoder takes."""

from types import SimpleNamespace

import pytest

CODECS = ("h264", "hevc", "vp9")


@pytest.mark.parametrize("codec", CODECS)
def test_a_video_below_the_decoders_minimum_is_refused(gpu_video, codec):
    assert len(gpu_video(frames=2, codec=codec).mp4) > 100
    with pytest.raises(ValueError, match=f"{codec} .*: NVDEC decodes none below"):
        gpu_video(frames=2, height=160, width=32, codec=codec)


def test_no_test_that_needs_a_gpu_takes_smaller_videos(request):
    module = request.config.pluginmanager.get_plugin(str(request.path.parents[1] / "conftest.py"))
    marked = SimpleNamespace(get_closest_marker=lambda name: name == "gpu", fixturenames=["video"], nodeid="test_x")
    with pytest.raises(pytest.UsageError, match="test_x is marked gpu and uses video: take gpu_video"):
        module.pytest_collection_modifyitems([marked])
    module.pytest_collection_modifyitems(request.session.items)
