"""The first function of every process the keeper starts."""

import importlib
from collections.abc import Callable

from setproctitle import setproctitle

from jobworker.supervisor.packets import Line


def run(name: str, target: str, config: str, line: Line) -> None:
    """Call `target` ("module:function") with its JSON configuration and the line to the keeper.

    The target returns when the keeper is gone or tells it to end.
    """
    setproctitle(f"jobworker: {name}")
    module, _, function = target.partition(":")
    main: Callable[[str, Line], None] = getattr(importlib.import_module(module), function)
    main(config, line)
