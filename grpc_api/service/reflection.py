"""The contract told to tools that ask for it (gRPC server reflection), and nothing beside it."""

from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio  # type: ignore[attr-defined] # not in its stubs

from jobworker.proto import workerservice_pb2 as pb


def add_reflection(server: "grpc.aio.Server") -> None:
    """Have a server answer for the files of its services; who may ask is the guard's to say."""
    files = (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    services = [service.full_name for one in files for service in one.services_by_name.values()]
    # The default one has the pipes' own messages, too.
    pool = DescriptorPool()
    for one in files:
        _add(one, pool, set())
    servicer = aio.ReflectionServicer(services, pool=pool)  # type: ignore[attr-defined]
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)


def _add(one: FileDescriptor, pool: Any, added: set[str]) -> None:
    """Put a file into a pool, after those that it imports."""
    if one.name not in added:
        added.add(one.name)
        for imported in one.dependencies:
            _add(imported, pool, added)
        pool.AddSerializedFile(one.serialized_pb)
