"""What a process has and uses, read from the kernel."""

import resource
from pathlib import Path

import trio


async def living_tasks() -> int:
    """Count the trio tasks that stay: the least number within a while, for some come and go."""
    least = trio.lowlevel.current_statistics().tasks_living
    for _ in range(20):
        await trio.sleep(0.02)
        least = min(least, trio.lowlevel.current_statistics().tasks_living)
    return least


def memory_mib(pid: int | None = None) -> float:
    """Return the memory that a process has now, this one if none is named."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2
