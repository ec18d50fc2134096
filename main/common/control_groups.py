"""Control groups of Linux that this process is in: the limits of a container or of a Slurm job."""

from collections.abc import Container, Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def levels(controllers: Container[str], root: Path = ROOT, own: Path = OWN) -> Iterator[tuple[str, Path]]:
    """Yield controller and folder of each group of this process, from the innermost to the root.

    Args:
        controllers: those of version 1 that are wanted; "" stands for version 2, which has one tree for all.
        root: where the groups are mounted.
        own: lists the groups of this process.
    """
    for line in own.read_text().splitlines() if own.is_file() else ():
        kinds, name = line.split(":", 2)[1:]
        for kind in kinds.split(","):
            if kind in controllers:
                folder = root / kind / name.strip("/")
                for level in (folder, *folder.parents):
                    if level.is_relative_to(root):
                        yield kind, level
