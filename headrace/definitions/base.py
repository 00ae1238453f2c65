"""What every definition has: a name under its owner's team, and text for people."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

from headrace.definitions.checks import DESCRIPTION_LENGTH_MAX, check_tags, check_text, invalid
from headrace.names import NAME_LENGTH_MAX, check_name, check_word, team_of

OWNER_PARTS_MAX = 2  # team, or team.group


@dataclass(frozen=True, slots=True)
class Definition:
    """Common part of all kinds. `owner` is a team or a group in it, `team.group`; the name lies under that team.

    `etag` is that of the registered object that an edit began from; where it is set, a change in between is refused.
    """

    name: str
    _: KW_ONLY
    owner: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    etag: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        check_text(self.name, "name", NAME_LENGTH_MAX * 2, required=True)
        check_name(self.name)
        check_owner(self.owner, self.name)
        check_text(self.description, "description", DESCRIPTION_LENGTH_MAX)
        check_text(self.etag, "etag", NAME_LENGTH_MAX)
        object.__setattr__(self, "tags", check_tags(self.tags))


def check_owner(owner: object, name: str) -> None:
    """Raises where an owner is missing, is no `team` or `team.group`, or is of another team than the name."""
    text = check_text(owner, "owner", NAME_LENGTH_MAX, required=True)
    parts = text.split(".")
    if len(parts) > OWNER_PARTS_MAX:
        raise invalid(f"owner {text!r} is not a team or team.group", "INVALID_NAME", "owner", owner=text)
    for part in parts:
        check_word(part, "owner", "owner")
    if team_of(name) != team_of(text):
        raise invalid(
            f"{name!r} lies outside the prefix of its owner {text!r}; "
            f"a name of this team starts with '{team_of(text)}.'",
            "FOREIGN_PREFIX",
            "owner",
            name=name,
            owner=text,
        )
