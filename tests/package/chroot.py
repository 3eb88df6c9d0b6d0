"""A bare Debian 12 to install packages in: a tarball in the lab's cache, made once with mmdebstrap.

Mirror, suites, proxies and credentials are those of this machine's apt. Not responsible for what is
done in it (in_chroot.sh).
"""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from lab import packages
from lab.commands import LabError, run

SUITE = "bookworm"


def apt_settings():
    """What this machine tells apt about fetching, as text of apt.conf."""
    return run(["apt-config", "dump", "Acquire"])


def sources():
    """This machine's sources of Debian 12 as text of sources.list; LabError without any."""
    form = "$(CREATED_BY) $(SITE) $(CODENAME) $(COMPONENT)"
    for attempt in ("as it is", "updated"):
        if attempt == "updated":
            packages.apt_get("update")
        listed = run(["apt-get", "indextargets", "--format", form], what="ask apt for its sources")
        rows = [line.split() for line in listed.splitlines() if line.startswith("Packages ")]
        wanted = [f"deb {site} {codename} {component}\n" for _, site, codename, component in rows
                  if codename.startswith(SUITE) and not codename.endswith("backports")]
        if any(f" {SUITE} main" in line for line in wanted):
            return "".join(sorted(set(wanted)))
    raise LabError(f"find Debian's {SUITE}: apt has no source of its main component")


def bare(cache):
    """The tarball of a bare Debian 12 in `cache`; made when it is not there. The caller holds
    CacheLock. LabError with mmdebstrap's own words."""
    tarball = pathlib.Path(cache) / f"chroot-{SUITE}.tar"
    if tarball.exists():
        return tarball
    with tempfile.TemporaryDirectory(dir=cache, prefix="chroot-") as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "apt.conf").write_text(apt_settings())
        (scratch / "sources.list").write_text(sources())
        # The lists of packages stay in it: a second run needs no network.
        run(["mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--include=ca-certificates",
             f"--aptopt={scratch}/apt.conf", "--skip=cleanup/apt/lists",
             SUITE, str(scratch / "new.tar"), str(scratch / "sources.list")],
            what=f"make a bare Debian {SUITE}", timeout_s=1200)
        (scratch / "new.tar").rename(tarball)
    return tarball
