SLOTS: int

def spawn(
    descriptors: tuple[int, ...],
    first_slot: int,
    paths: tuple[bytes, ...],
    check: tuple[bytes, ...],
    argv: tuple[bytes, ...],
    envp: tuple[bytes, ...],
    cwd: bytes,
    cgroup: int,
    user: tuple[int, int, tuple[int, ...]] | None,
    limits: tuple[tuple[int, int, int], ...],
    no_new_privileges: bool,
    umask: int,
    terminal: bool,
    /,
) -> tuple[int, int]: ...
def sharing() -> int: ...
