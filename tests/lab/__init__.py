"""The lab: real guests, real networks and a real load on one small machine.

Used by the quickstart, the VM tests and the benchmarks. Read in this order: network.py (hosts as
network namespaces), guest.py (kernel and initramfs), qemu.py (one VM), qmp.py (its monitor),
load.py (the client's traffic), timeline.py (what the traffic says about a relocation).

It knows nothing of uffd-server or postcopyctl: whoever relocates a guest starts those itself, with
`Network.exec_argv`.
"""
