"""The guest's disk in a torture: an image that the QEMUs of both hosts open, written and verified by the
guest all the time, and by this host at the end. What is in it says lab/disks.py.
"""

from lab import disks

DISK = disks.Disk(iothread=True)


class GuestDisk:
    """The one disk of the guest with these Parameters on `stage`. For one thread."""

    def __init__(self, stage, parameters):
        self._network, self._parameters = stage.network, parameters
        self._path = stage.folder / "disk.img"
        disks.make(self._path, DISK)

    def words(self):
        """What each QEMU is told of it."""
        return DISK.words(0, self._path, lambda: "")

    def errors(self):
        """Words that the guest has found wrong on it so far. LabError: it does not answer."""
        return disks.status(self._network, self._parameters.address, 0)["errors"]

    def finish(self):
        """Has the guest verify all of it once more and unmount it. Returns the wrong words found, and what
        the file at the end of faults() is compared with."""
        seen = disks.await_passes(self._network, self._parameters.address, 0)
        generation, = disks.stop_in_guest(self._network, self._parameters.address, [DISK])
        return seen["errors"], generation

    def faults(self, generation):
        """What is wrong in the image when no QEMU has it open any more: sentences."""
        return disks.faults(self._path, DISK, 0, self._parameters, generation)
