"""Roots below which the offline store reads and writes; every other place is refused."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from headrace.errors import InvalidArgument

S3: Final = "s3"


class Roots:
    """Local folders and s3:// prefixes that a caller may name places below."""

    def __init__(self, roots: Sequence[str]) -> None:
        folders = [os.path.abspath(_local(root)) for root in roots if not _is_s3(root)]
        self._folders = [(folder, os.path.realpath(folder)) for folder in folders]
        self._prefixes = [root.rstrip("/") for root in roots if _is_s3(root)]

    def resolve(self, uri: str, field: str = "uri") -> str:
        """The place as a plain local path or s3:// address; refuses what lies outside, and symlinks on the way."""
        if _is_s3(uri):
            return self._resolve_s3(uri, field)
        given = _local(uri, field)
        if ".." in PurePosixPath(given).parts or "\0" in given:
            raise _outside(uri, field)
        path = Path(os.path.abspath(given))
        for spelled, real in self._folders:
            for folder in (spelled, real):
                if path.is_relative_to(folder):
                    # Links above a root are the business of whoever configured it; below it none is followed.
                    place = os.path.join(real, path.relative_to(folder)) if path != Path(folder) else real
                    if os.path.realpath(place) == place:
                        return place
        raise _outside(uri, field)

    def _resolve_s3(self, uri: str, field: str) -> str:
        parts = urlsplit(uri)
        steps = parts.path.split("/")[1:]
        is_plain = parts.netloc and not parts.query and not parts.fragment and "%" not in uri and "\0" not in uri
        if not is_plain or any(step in {"", ".", ".."} for step in steps[:-1]) or steps[-1:] in (["."], [".."]):
            raise _outside(uri, field)
        plain = uri.rstrip("/")
        if not any(plain == prefix or plain.startswith(prefix + "/") for prefix in self._prefixes):
            raise _outside(uri, field)
        return plain


def _is_s3(uri: str) -> bool:
    return uri.startswith(f"{S3}://")


def _local(uri: str, field: str = "uri") -> str:
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc == "":
        return parts.path
    if "://" in uri:
        raise InvalidArgument(
            f"{uri!r} has a scheme that is not read; name a local path or an s3:// address",
            reason="URI_SCHEME",
            field=field,
            metadata={"uri": uri},
        )
    return uri


def _outside(uri: str, field: str) -> InvalidArgument:
    return InvalidArgument(
        f"{uri!r} lies outside the configured roots, or passes '..' or a symbolic link; name a place below a root",
        reason="URI_OUTSIDE_ROOTS",
        field=field,
        metadata={"uri": uri},
    )
