"""Parses and writes names: `team.domain.name`, `name@v3` and `name@v3:feature`."""

import re
from dataclasses import dataclass
from typing import Final

from headrace.errors import InvalidArgument

NAME_LENGTH_MAX: Final = 128  # characters of any name; keeps a reference inside one line of a log or an answer
VERSION_MAX: Final = 2**31 - 1  # versions are int32 in the contracts
REFERENCE_LENGTH_MAX: Final = 2 * NAME_LENGTH_MAX + len(f"@v{VERSION_MAX}:")
NAME_PARTS: Final = 3  # team, domain, name

_WORD: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*\Z")
_VERSION: Final = re.compile(r"v([1-9][0-9]{0,9})\Z")
_QUOTED_MAX: Final = 160  # characters of a bad name that a message repeats


@dataclass(frozen=True, slots=True, order=True)
class VersionRef:
    """A name with an optional version; version 0 means that none was given."""

    name: str
    version: int = 0

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True, order=True)
class FeatureRef:
    """One feature of a view; version 0 means that none was given."""

    view: str
    version: int
    feature: str

    def __str__(self) -> str:
        return f"{VersionRef(self.view, self.version)}:{self.feature}"


def is_word(text: str) -> bool:
    """Whether a text is lower snake case within the length of a name: `dep_delay_1h`."""
    return len(text) <= NAME_LENGTH_MAX and _WORD.match(text) is not None


def check_word(text: str, field: str, what: str) -> str:
    """The text where it is lower snake case; raises INVALID_NAME else. `what` names its role, as in "feature name"."""
    if not is_word(text):
        raise _invalid(
            text,
            field,
            f"{what} {_quoted(text)} is not lower snake case of at most {NAME_LENGTH_MAX} characters; "
            "write it like 'dep_delay_1h'",
        )
    return text


def check_name(text: str, field: str = "name") -> str:
    """The text where it is `team.domain.name`; raises INVALID_NAME else."""
    parts = text.split(".")
    if len(text) > NAME_LENGTH_MAX:
        raise _invalid(
            text, field, f"name {_quoted(text)} has {len(text)} characters; at most {NAME_LENGTH_MAX} are allowed"
        )
    if len(parts) != NAME_PARTS or not all(is_word(part) for part in parts):
        raise _invalid(
            text,
            field,
            f"name {_quoted(text)} is not of the form team.domain.name in lower snake case; "
            "write it like 'flights.ops.departures'",
        )
    return text


def team_of(name: str) -> str:
    """The team that a name or an owner lies under."""
    return name.partition(".")[0]


def parse_version_ref(text: str, field: str = "name") -> VersionRef:
    """`team.domain.name` or `team.domain.name@v3`."""
    _check_length(text, field)
    name, separator, version = text.partition("@")
    return VersionRef(check_name(name, field), _version(version, text, field) if separator else 0)


def parse_pinned_ref(text: str, field: str = "name") -> VersionRef:
    """`team.domain.name@v3`; a reference without a version is refused with VERSION_REQUIRED."""
    ref = parse_version_ref(text, field)
    if not ref.version:
        raise InvalidArgument(
            f"{_quoted(text)} names no version; write it like '{ref.name}@v1'",
            reason="VERSION_REQUIRED",
            field=field,
            metadata={"name": _cut(text)},
        )
    return ref


def parse_plain_name(text: str, field: str = "name") -> str:
    """`team.domain.name` of a kind that has no versions; a version is refused with VERSION_REFUSED."""
    ref = parse_version_ref(text, field)
    if ref.version:
        raise InvalidArgument(
            f"{_quoted(text)} names a version, and this kind has none; write '{ref.name}'",
            reason="VERSION_REFUSED",
            field=field,
            metadata={"name": _cut(text)},
        )
    return ref.name


def parse_feature_ref(text: str, field: str = "features") -> FeatureRef:
    """`team.domain.name@v3:feature` or `team.domain.name:feature`."""
    _check_length(text, field)
    view, separator, feature = text.partition(":")
    if not separator:
        raise _invalid(
            text,
            field,
            f"feature reference {_quoted(text)} has no ':'; write it like 'flights.ops.departures@v1:dep_delay'",
        )
    ref = parse_version_ref(view, field)
    return FeatureRef(ref.name, ref.version, check_word(feature, field, "feature name"))


def _version(version: str, text: str, field: str) -> int:
    match = _VERSION.match(version)
    number = int(match[1]) if match else 0
    if not 1 <= number <= VERSION_MAX:
        raise _invalid(
            text,
            field,
            f"version {_quoted(version)} in {_quoted(text)} is not v1 to v{VERSION_MAX}; write it like '@v3'",
        )
    return number


def _check_length(text: str, field: str) -> None:
    if len(text) > REFERENCE_LENGTH_MAX:
        raise _invalid(
            text,
            field,
            f"reference {_quoted(text)} has {len(text)} characters; at most {REFERENCE_LENGTH_MAX} are allowed",
        )


def _invalid(text: str, field: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="INVALID_NAME", field=field, metadata={"name": _cut(text)})


def _quoted(text: str) -> str:
    return repr(_cut(text))


def _cut(text: str) -> str:
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= _QUOTED_MAX else clean[:_QUOTED_MAX] + "…"
