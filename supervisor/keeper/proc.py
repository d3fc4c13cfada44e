"""What the kernel tells of a process."""


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot (proc(5), stat field 22)."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        # The second field, the name, may itself hold spaces and parentheses.
        return int(stat.read().rpartition(b")")[2].split()[19])
