"""A method for which nobody said who may call it keeps the server from starting."""

import pytest

from jobworker.grpc_api.errors import UndeclaredMethod
from jobworker.grpc_api.guard.rules import RULES, check_declared
from jobworker.proto.workerservice_pb2 import DESCRIPTOR

METHODS = [
    method for service in DESCRIPTOR.services_by_name.values() for method in service.methods_by_name
]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_without_a_rule_is_refused(method: str) -> None:
    rules = {name: rule for name, rule in RULES.items() if name != method}
    with pytest.raises(UndeclaredMethod, match=rf"\.{method} declares no action"):
        check_declared(rules)


def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    check_declared(RULES)
    assert set(RULES) == set(METHODS)
