"""Memory of this machine that is ready to be used, for a relocation that is measured.

A virtual machine whose hypervisor takes free memory back (free page reporting, a balloon) pays for the
first touch of every page that was free for some seconds: 1.5 to 6 s a GiB was seen here, against
0.2 s. That is neither the relocation's doing nor steady. So memory is touched and held until just
before the relocation takes its own. On a machine without such a hypervisor it changes nothing.
"""

import ctypes
import mmap


class WarmMemory:
    """Holds `size_bytes` of touched memory until release(). OSError if there is not so much."""

    def __init__(self, size_bytes):
        self._memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)  # such as a relocation takes
        first = ctypes.c_char.from_buffer(self._memory)
        ctypes.memset(ctypes.addressof(first), 1, size_bytes)
        del first

    def release(self):
        """Gives the memory back to the kernel; more than once is fine."""
        self._memory.close()
