"""The first function of every process the keeper starts."""

import importlib
from collections.abc import Callable

from jobworker.supervisor.keeper.packets import Line


def run(name: str, target: str, config: str, line: Line) -> None:
    """Call `target` ("module:function") with its JSON configuration and the line to the keeper.

    The target returns when the keeper is gone or tells it to end.
    """
    # Not above: the keeper imports this module, too, and every job pays for its size.
    from setproctitle import setproctitle

    setproctitle(f"jobworker: {name}")
    module, _, function = target.partition(":")
    main: Callable[[str, Line], None] = getattr(importlib.import_module(module), function)
    main(config, line)
