"""Files that appear whole or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def whole_file(target: Path) -> Iterator[TextIO]:
    """Text for ``target``, which keeps what it was until all is written. Devices, pipes and links are written to as
    they are: a file in the place of /dev/null would be the end of it. OSError when it cannot be written."""
    if os.path.lexists(target) and not stat.S_ISREG(target.lstat().st_mode):
        with target.open("w", encoding="utf-8") as out:
            yield out
        return
    partial = target.with_name(f"{target.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as out:
            yield out
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
