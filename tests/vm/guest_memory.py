"""A QEMU's guest RAM, read from outside through its mapping: whoever reads a page that is missing
there makes QEMU's userfaultfd report it, as an access by the guest would.

process_vm_readv does so; /proc/PID/mem does not wait for a userfaultfd and fails instead.
"""

import ctypes
import hashlib
import os
import threading

PAGE = 4096
_CHUNK = 8 << 20
_AT_ONCE = 64  # pages a system call asks for, one after the other


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


_libc = ctypes.CDLL(None, use_errno=True)


def _read(pid, local, local_length, ranges):
    """Reads `ranges` (address, length) of process `pid` one after the other into `local`."""
    into = (_Iovec * 1)(_Iovec(ctypes.addressof(local), local_length))
    remote = (_Iovec * len(ranges))(*(_Iovec(*each) for each in ranges))
    wanted = sum(length for _, length in ranges)
    got = _libc.process_vm_readv(pid, into, 1, remote, len(ranges), 0)
    if got != wanted:
        cause = os.strerror(ctypes.get_errno()) if got < 0 else f"{got} of {wanted} bytes"
        raise OSError(f"read memory of process {pid} at {ranges[0][0]:#x}: {cause}")


def sha256(pid, address, size):
    """Of the process's memory as it sees it; waits for pages that are missing."""
    digest, buffer = hashlib.sha256(), ctypes.create_string_buffer(_CHUNK)
    for done in range(0, size, _CHUNK):
        length = min(_CHUNK, size - done)
        _read(pid, buffer, length, [(address + done, length)])
        digest.update(memoryview(buffer)[:length])
    return digest.hexdigest()


def file_sha256(path):
    """Of a RAM file, holes as zeros."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Toucher:
    """Threads that ask for pages of a process's memory, in the order given, a byte of each."""

    def __init__(self, pid, address, pages, threads=8):
        self._pid, self._address = pid, address
        self.error = None
        self._threads = [threading.Thread(target=self._touch, args=(pages[i::threads],))
                         for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def join(self):
        """Waits until every page has come; OSError if one did not."""
        for thread in self._threads:
            thread.join()
        if self.error:
            raise self.error

    def _touch(self, pages):
        buffer = ctypes.create_string_buffer(_AT_ONCE)
        try:
            for start in range(0, len(pages), _AT_ONCE):
                ranges = [(self._address + page * PAGE, 1)
                          for page in pages[start:start + _AT_ONCE]]
                _read(self._pid, buffer, len(ranges), ranges)
        except OSError as error:
            self.error = error
