"""The lab: real guests, real networks and a real load on one small machine.

Used by the quickstart, the VM tests and the benchmarks. Read in this order: network.py (hosts as
network namespaces), guest.py (kernel and initramfs), qemu.py (one VM), qmp.py (its monitor),
load.py (the client's traffic), timeline.py and qos.py (what the traffic says about a relocation).

These know nothing of the project's programs. What relocates stands on top of them: host.py (one
host's daemon and postcopyctl), two_hosts.py (the stage), scenario.py (one relocation under load)
and verdict.py (what it has come to).
"""
