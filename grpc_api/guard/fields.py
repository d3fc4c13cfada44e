"""What no field of any request may hold, whichever it is: driven by the contract's descriptors."""

import math
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.grpc_api.guard.refusal import invalid
from jobworker.proto import workerservice_pb2 as pb

# timestamp.proto: from the year 1 to the year 9999.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)


def check_fields(request: Message, within: str = "") -> None:
    """Raise Refusal, with the field's name, for an unknown enum value, no number, or no time.

    `within` is the name of the field that the message is in, with a dot.
    """
    for field, value in request.ListFields():
        name = within + field.name
        # Maps and lists hold texts alone.
        if not field.is_repeated:
            _check(field, value, name)


def _check(field: FieldDescriptor, value: Any, name: str) -> None:
    if field.enum_type is not None:
        _check_enum(field.enum_type, value, name)
    elif field.type in _FLOATS:
        if not (math.isfinite(value) and value >= 0):
            raise invalid(name, f"{value:g} is not a number that is 0 or more")
    elif isinstance(value, Timestamp):
        _check_time(value, name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE and not isinstance(value, pb.StartRequest):
        # What CanI asks about is looked at as Start looks at it: once it may be started.
        check_fields(value, f"{name}.")


def _check_enum(kind: EnumDescriptor, value: int, name: str) -> None:
    if value not in kind.values_by_number:
        known = ", ".join(one.name for one in kind.values)
        raise invalid(name, f"{value} is none of {known}")


def _check_time(time: Timestamp, name: str) -> None:
    if not (_FIRST_SECOND <= time.seconds <= _LAST_SECOND and 0 <= time.nanos < 10**9):
        raise invalid(
            name,
            f"{time.seconds} s and {time.nanos} ns are no time between the years 1 and 9999",
        )
