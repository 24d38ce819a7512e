"""Exported models on the Hugging Face Hub: ``hf:ORG/NAME`` and ``hf:ORG/NAME@REVISION`` to read, ORG/NAME to write.

Only the three files of an export are downloaded, never code; what is in them is as little trusted as any folder's.
"""

import os
import re
from pathlib import Path
from typing import Any

from ...pipeline.errors import InputError
from ...pipeline.safe_text import printable
from ..models.hub_address import only_cached
from .classifier import CONFIG, LABELS, WEIGHTS

PREFIX = "hf:"
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def model_folder(model: Path) -> Path:
    """The folder of a model; one on the Hub is downloaded, once, to the Hub's own cache.

    Args:
        model: a folder, or ``hf:ORG/NAME`` with an optional ``@REVISION``.

    Raises:
        InputError: huggingface_hub is missing, there is no such model, or the Hub cannot be reached.
    """
    if not str(model).startswith(PREFIX):
        return model
    match = _NAME.fullmatch(str(model)[len(PREFIX) :])
    if match is None:
        raise InputError(f"{model}: expected hf:ORG/NAME or hf:ORG/NAME@REVISION")
    hub = _hub()
    where: dict[str, Any] = {"revision": match["revision"], "endpoint": os.environ.get("HF_ENDPOINT")}
    where["local_files_only"] = only_cached()
    try:
        paths = [Path(hub.hf_hub_download(match["repository"], name, **where)) for name in (CONFIG, LABELS, WEIGHTS)]
    except hub.errors.LocalEntryNotFoundError:
        raise InputError(f"{model}: not in the cache, and the Hub cannot be reached; give a folder") from None
    except Exception as error:  # of the Hub, of its client, or of the HTTP library, which differs by version
        raise InputError(f"{model}: not to be had from the Hub ({_line(error)}); give a folder") from None
    return paths[0].parent


def push(folder: Path, name: str) -> str:
    """Upload an exported folder; a repository that is new is private.

    Args:
        folder: made by ``unstill export --card``.
        name: ORG/NAME.

    Returns:
        The address of the repository.

    Raises:
        InputError: huggingface_hub is missing, nobody is logged in, or the upload fails.
    """
    if _NAME.fullmatch(name) is None or "@" in name:
        raise InputError(f"--push {name}: expected ORG/NAME")
    hub = _hub()
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        repository = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by unstill export")
    except (
        hub.errors.HfHubHTTPError,
        hub.errors.HFValidationError,
        hub.errors.LocalTokenNotFoundError,
        OSError,
    ) as error:
        raise InputError(
            f"{folder} is written, but not uploaded to {name} ({_line(error)}); log in with `hf auth login`, and "
            "repeat with another --out"
        ) from None
    return str(repository)


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise InputError("models on the Hugging Face Hub need huggingface_hub; pip install 'unstill[hub]'") from None
    return huggingface_hub


def _line(error: Exception) -> str:
    return printable(" ".join(str(error).split())[:200]) or type(error).__name__
