"""IDX files of unsigned bytes: the format of MNIST (magic 0 0 8 rank, big-endian sizes, data)."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from pnn.errors import UserError

if TYPE_CHECKING:
    import numpy as np


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes → uint8 array. Raises UserError if it is missing, of another kind or truncated."""
    import numpy as np

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); fetch it with pnn-data or give task.path="
        ) from error
    rank = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or not 1 <= rank <= 4 or len(content) < 4 + 4 * rank:
        raise UserError(
            f"{path} is not an IDX file of bytes: it starts with {content[:4].hex() or 'nothing'}, not 000008; "
            "fetch it again with pnn-data, or unpack it if it is compressed"
        )
    shape = struct.unpack_from(f">{rank}I", content, 4)
    expected, found = math.prod(shape), len(content) - 4 - 4 * rank
    if found != expected:
        sizes = " × ".join(str(n) for n in shape)
        raise UserError(
            f"{path} holds {found:,} bytes of data and its header says {expected:,} ({sizes}); "
            "fetch it again with pnn-data"
        )
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """A uint8 array as an IDX file."""
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())
