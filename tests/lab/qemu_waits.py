"""How long a guest waited for single pages in QEMU's own post-copy, from QEMU's trace events.

The yardstick is that of this project's engine, event read to wake: QEMU's fault thread has read the
event when it reports the request, and the page's ioctl, which wakes whoever waits, is done when it
takes the request off its list. Pages that nobody waits for are in neither event, so a trace costs
two lines a fault. A fault on a page that has come meanwhile is reported, but waits for nothing.
"""

import dataclasses
import pathlib
import re

_EVENTS = ("postcopy_ram_fault_thread_request", "postcopy_page_req_del")
_ASKED = re.compile(r"\d+@(\d+\.\d+):postcopy_ram_fault_thread_request Request for "
                    r"HVA=0x([0-9a-f]+) rb=(\S+) offset=0x([0-9a-f]+)")
_CAME = re.compile(r"\d+@(\d+\.\d+):postcopy_page_req_del resolved page req 0x([0-9a-f]+) ")


@dataclasses.dataclass(frozen=True)
class Wait:
    """One page that the guest had to wait for."""

    time: float     # when its fault was read, seconds since the epoch
    block: str
    offset: int     # of the page in the block, bytes
    wait_us: float


def arguments(path):
    """What makes a destination's QEMU write its waits to `path`: words for its command line."""
    return ("-msg", "timestamp=on", "-D", str(path),
            *(word for event in _EVENTS for word in ("-trace", event)))


def read(path):
    """The Waits in a file that QEMU has written, in the order in which they began; an empty list if
    there is no such file."""
    path = pathlib.Path(path)
    return waits_of(path.read_text(errors="replace").splitlines()) if path.exists() else []


def waits_of(lines):
    """The Waits that these lines of a trace tell of."""
    asked, waits = {}, []
    for line in lines:
        if found := _ASKED.match(line):
            time, address, block, offset = found.groups()
            asked.setdefault(int(address, 16), (float(time), block, int(offset, 16)))
        elif found := _CAME.match(line):
            time, address = found.groups()
            request = asked.pop(int(address, 16), None)
            if request is not None:
                begun, block, offset = request
                waits.append(Wait(begun, block, offset, (float(time) - begun) * 1e6))
    return sorted(waits, key=lambda wait: wait.time)
