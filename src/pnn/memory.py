"""The C library's allocator, told to keep what training frees and needs again a step later."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks instead of returning them to the system; elsewhere nothing happens.

    A training step frees and allocates the same large tensors over and over; without this the kernel clears new pages
    for them every time (about a quarter of the processor time of a second-harmonic device's call on 512 pulses).
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):  # another C library
        return
