"""The table from gRPC method to permission, read from the contracts."""

from collections.abc import Mapping

from google.protobuf.descriptor import FileDescriptor

from headrace.serving.principal import PREFIX
from protos.common.v1 import options_pb2


def method_permissions(*files: FileDescriptor) -> Mapping[str, str]:
    """Permission by full method name, "/package.Service/Method". A method that declares none is refused."""
    table: dict[str, str] = {}
    for file in files:
        for service in file.services_by_name.values():
            for method in service.methods:
                number = method.GetOptions().Extensions[options_pb2.permission]
                if number == options_pb2.PERMISSION_UNSPECIFIED:
                    raise ValueError(f"method {method.full_name} declares no permission")
                name = options_pb2.Permission.Name(number).removeprefix(PREFIX)
                table[f"/{service.full_name}/{method.name}"] = name
    return table
