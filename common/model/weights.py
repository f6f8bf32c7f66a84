"""A checkpoint's weights before they are read: are they there, in a form that is read, and has the disk room for them?"""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE

from common import processes
from common.errors import InputError

_OTHER_FORMS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf")


def check_weights(name: str, revision: str | None) -> None:
    """Raise InputError where a folder or hub id has no weights in safetensors, or the disk has no room to download them."""
    if Path(name).is_dir():
        files = [file.name for file in Path(name).iterdir()]
    else:
        try:
            listed = snapshot_download(name, revision=revision, allow_patterns=["*.safetensors", *_OTHER_FORMS], dry_run=True)
        except Exception:  # no network, or no listing: the download itself will tell
            return
        files = [file.filename for file in listed]
        _check_room(name, sum(f.file_size or 0 for f in listed if f.will_download and f.filename.endswith(".safetensors")))
    if not any(file.endswith(".safetensors") for file in files):
        others = sorted(file for file in files if any(Path(file).match(form) for form in _OTHER_FORMS))
        found = f"only {others[0]}, which can run code as it is read" if others else "no weights at all"
        raise InputError(f"--model {name}: has no weights in safetensors, {found}; another revision of it may have them")


def _check_room(name: str, needed: int) -> None:
    place = Path(HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    if needed > (free := shutil.disk_usage(place).free):
        raise InputError(
            f"--model {name}: {needed / 1e9:.1f} GB are to be downloaded, and the disk of the cache {HF_HUB_CACHE} has "
            f"{free / 1e9:.1f} GB free; HF_HOME names another place"
        )


@contextmanager
def progress_bars() -> Iterator[None]:
    """Show transformers' own progress of what is downloaded and loaded, of the first of several processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hub's client warns where a variable of its own has turned its bars off
        if processes.is_leader():
            transformers.utils.logging.enable_progress_bar()
        try:
            yield
        finally:
            transformers.utils.logging.disable_progress_bar()
