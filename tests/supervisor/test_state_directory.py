"""A directory that the library cannot keep its state in."""

import pytest

from jobworker.supervisor import JobWorker, StateError


@pytest.mark.parametrize("directory", ["/proc/nowhere", "/dev/null/below"])
def test_a_state_directory_that_cannot_be_is_refused_with_a_sentence(directory: str) -> None:
    with pytest.raises(StateError, match=f"cannot use {directory}: N"), JobWorker(directory):
        pass
