"""Writes an initramfs: a cpio archive in the "newc" format, all of it owned by root.

Written here rather than by cpio(1) so that the archive depends on its contents alone (no dates,
inode numbers or owners of this machine). What goes into the guest is guest.py's business.
"""

import stat


class Archive:
    """An archive under construction, in memory. Folders on the way to a path are added too."""

    def __init__(self):
        self._parts = []
        self._folders = set()

    def add_file(self, path, content, executable=False):
        """Adds a regular file at `path` (absolute, in the guest) with `content` (bytes)."""
        self._add_folders(path)
        self._add(path, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def finish(self):
        """The whole archive as bytes. Nothing may be added afterwards."""
        self._add("/TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add_folders(self, path):
        parents = path.strip("/").split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            folder = "/" + "/".join(parents[:depth])
            if folder not in self._folders:
                self._folders.add(folder)
                self._add(folder, stat.S_IFDIR | 0o755, b"")

    def _add(self, path, mode, content):
        name = path.lstrip("/").encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device and rdevice (major, minor), name, check
        fields = (len(self._parts) + 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (header + name, content):
            self._parts.append(part + bytes(-len(part) % 4))
