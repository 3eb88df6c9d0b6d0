#!/usr/bin/env python3
"""Shows that the lab works on this machine, without anything of the project in it.

Boots one guest on host a, puts a load on it, verifies all of its files, waits for its memory
checker, and prints the figures; with --flip also flips a byte of a file and one of the checked
memory and demands that both are noticed. Exit code 0: all as it should be; 1: not, with the cause
on standard error.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from lab import checker, flip, load, packages
from lab.commands import LabError
from lab.guest import Parameters, image
from lab.network import Network
from lab.qemu import Config, Vm
from lab.ram import RamFolder


def measure(arguments):
    """Runs the lab once and returns the figures; LabError when something is not as it should be."""
    guest = Parameters(files_mib=arguments.files_mib, check_mib=arguments.check_mib,
                       check_order=arguments.check_order)
    config = Config(memory_mib=arguments.memory_mib, ram=arguments.ram, prealloc=arguments.prealloc,
                    guest=guest)
    client = load.build_client()
    begin = time.monotonic()
    guest_image = image()
    figures = {"image_s": time.monotonic() - begin}
    with tempfile.TemporaryDirectory() as folder, Network() as network, \
            RamFolder(arguments.memory_mib + 64) as ram, \
            Vm(network, "a", guest_image, f"{folder}/a", ram.path, config=config) as vm:
        figures["boot_to_ready_s"] = vm.wait_ready()
        figures |= measure_load(network, client, guest, folder) if guest.files else {}
        if guest.check_mib:
            status = checker.wait_full_passes(network, guest.address, 2)
            figures["checker"] = vars(status)
            if status.errors:
                raise LabError(f"check the guest's memory: {status}")
        if arguments.flip:
            figures["noticed"] = demand_notice(vm, network, client, guest)
        figures["host_bytes_sent"] = network.bytes_sent("a")
        if vm.quit() != 0:
            raise LabError(f"quit QEMU: exit status {vm.exit_status}")
    return figures


def measure_load(network, client, guest, folder):
    with load.Load(network, client, guest, f"{folder}/load.json") as running:
        time.sleep(3)
        report = running.stop()
    if report.failed_requests or report.lost_connections:
        raise LabError(f"load: {report.raw['failures']}")
    verified = load.verify_files(network, client, guest)
    if not load.files_are_right(verified):
        raise LabError(f"verify the files: {verified}")
    counts = sorted(window.count for window in report.windows)
    return {"requests_per_100_ms": counts[len(counts) // 2],
            "latency_p50_us": report.raw["latency_p50_us"],
            "longest_gap_ms": report.raw["longest_gap_ms"],
            "verify": verified}


def demand_notice(vm, network, client, guest):
    """Flips bytes and returns what the checks say; LabError if one says that all is well."""
    noticed = {}
    if guest.check_mib:
        flip.flip_in_checked_memory(vm)
        noticed["checker"] = vars(checker.wait_full_passes(network, guest.address, 1))
        if noticed["checker"]["errors"] != 1:
            raise LabError(f"flip a byte of checked memory: the checker says {noticed['checker']}")
    if guest.files:
        flip.flip_in_file(vm, guest.seed, guest.files // 2)
        noticed["verify"] = load.verify_files(network, client, guest)
        if noticed["verify"]["wrong"] != 1:
            raise LabError(f"flip a byte of a file: the load client says {noticed['verify']}")
    return noticed


def main():
    parser = argparse.ArgumentParser(description="Boot one guest in the lab and check all of it.")
    parser.add_argument("--files-mib", type=int, default=256)
    parser.add_argument("--check-mib", type=int, default=128)
    parser.add_argument("--check-order", default="linear", choices=("linear", "random"))
    parser.add_argument("--memory-mib", type=int, default=1024)
    parser.add_argument("--ram", default="file", choices=("file", "anon"))
    parser.add_argument("--prealloc", action="store_true")
    parser.add_argument("--flip", action="store_true", help="show that a wrong byte is noticed")
    arguments = parser.parse_args()
    try:
        packages.install()
        print(json.dumps(measure(arguments), indent=2))
    except LabError as error:
        sys.exit(f"selftest: {error}")


if __name__ == "__main__":
    main()
