"""How this process's C library keeps memory."""

import asyncio
import contextlib
import ctypes
from typing import Never

# What may be free at the top of the heap.
KEPT_BYTES = 64 * 1024 * 1024
# What may be free in all of the allocator's arenas, and how often that is looked at.
_SPARE_BYTES = 32 * 1024 * 1024
_LOOK_SECONDS = 2.0


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 (mallinfo(3)); `fordblks` are the bytes that are free."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


async def give_back_freed_memory() -> Never:
    """Give memory back to the kernel whenever much is free, until cancelled.

    After a flood of calls it lies in pieces between what is in use, in an arena
    for each of gRPC's threads, where the C library leaves it for ever. Does
    nothing where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):
        library.mallinfo2.restype = _Mallinfo2
        while True:
            if library.mallinfo2().fordblks > _SPARE_BYTES:
                # It may take milliseconds, and takes no lock of Python's.
                await asyncio.to_thread(library.malloc_trim, ctypes.c_size_t(_SPARE_BYTES))
            await asyncio.sleep(_LOOK_SECONDS)
    await asyncio.Event().wait()
    raise AssertionError("nothing sets it")
