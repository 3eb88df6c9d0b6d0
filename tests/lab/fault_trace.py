"""Traces of faults (docs/trace-format.md): reads what a daemon has written, writes what QEMU's own
post-copy has said."""

import pathlib

PAGE_BYTES = 4096


def waits_us(path):
    """The waits for pages that were asked for, in ascending order."""
    faults = (line.split() for line in pathlib.Path(path).read_text().splitlines()
              if line.startswith("fault "))
    return sorted(int(wait) / 1000 for _, _, _, _, kind, wait in faults
                  if kind == "asked" and wait != "-")


def write(path, vm, session, blocks, waits, start, resume):
    """Writes a trace of qemu_waits.Waits. `blocks` are the guest's by name, in bytes; a block that is not
    among them is as large as its last page. All of each counts as data, since nothing tells. `start`
    and `resume` are seconds since the epoch."""
    sizes = dict(blocks)
    for wait in waits:
        sizes[wait.block] = max(sizes.get(wait.block, 0), wait.offset + PAGE_BYTES)
    numbers = {name: number for number, name in enumerate(sizes)}
    lines = ["postcopy-trace 1", f"vm {vm}", f"session {session}"]
    lines += [f"block {size // PAGE_BYTES} {PAGE_BYTES} {_word(name)}" for name, size in sizes.items()]
    lines += [f"data {numbers[name]} 0 {size // PAGE_BYTES}" for name, size in sizes.items()]
    lines.append(f"resume {_ns(resume - start)}")
    lines += [f"fault {_ns(wait.time - start)} {numbers[wait.block]} {wait.offset // PAGE_BYTES} asked "
              f"{_ns(wait.wait_us / 1e6)}" for wait in waits]
    pathlib.Path(path).write_text("\n".join([*lines, "end", ""]))


def _ns(seconds):
    return max(0, round(seconds * 1e9))


def _word(name):
    return "".join(c if "!" <= c <= "~" and c != "%" else "".join(f"%{b:02x}" for b in c.encode())
                   for c in name)
