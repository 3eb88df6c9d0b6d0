"""guest/content.h in Python, as far as the lab's own checks need it. Slow: for single files.

load_client_test.py shows that both say the same.
"""

import struct

FILE_BYTES = 65536
GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix64(x):
    """lab_mix64: `x` below 2^64."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def file_content(seed, file, size=FILE_BYTES):
    """The first `size` bytes (a multiple of 8) of what lab_fill_file writes."""
    state = mix64((mix64((seed + GOLDEN) & _MASK) + file) & _MASK)
    return b"".join(struct.pack("<Q", mix64((state + i * GOLDEN) & _MASK))
                    for i in range(1, size // 8 + 1))


def is_checked_page(page):
    """Whether a page's 4096 bytes look like one that memcheck has written."""
    first, second = struct.unpack_from("<QQ", page)
    (last,) = struct.unpack_from("<Q", page, 4088)
    return (second - first) & _MASK == GOLDEN and (last - first) & _MASK == (511 * GOLDEN) & _MASK
