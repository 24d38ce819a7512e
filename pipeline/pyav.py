"""What differs between the releases of PyAV that are supported."""

from typing import Any

import av

# a title in a broken encoding must not make a video unreadable: 19 reads it so by itself, and takes no word on it
LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
