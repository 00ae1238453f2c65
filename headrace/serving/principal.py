"""Who calls, with what they may do."""

from dataclasses import dataclass
from typing import Final

from headrace.errors import PermissionDenied
from protos.common.v1 import options_pb2

PREFIX: Final = "PERMISSION_"
PERMISSIONS: Final = frozenset(
    name.removeprefix(PREFIX) for name, number in options_pb2.Permission.items() if number
)  # names of the contract, without the enum's prefix


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller; permissions are names such as FEATURE_READ."""

    name: str
    permissions: frozenset[str]

    def require(self, permission: str) -> None:
        """Raises PermissionDenied where the permission is not held."""
        if permission not in self.permissions:
            raise PermissionDenied(
                f"principal {self.name!r} does not hold {permission}; ask its owner to grant it",
                reason="PERMISSION_DENIED",
                metadata={"principal": self.name, "permission": permission},
            )


LOCAL: Final = Principal("local", PERMISSIONS)  # of an embedded server on loopback without tokens
