"""What options of `headrace lineage` may name."""

from enum import StrEnum


class Planned(StrEnum):
    """What is to happen to a node."""

    DROP = "drop"
    RENAME = "rename"
    RETYPE = "retype"


class Affected(StrEnum):
    """Kinds of nodes, as options name them."""

    FEATURES = "features"
    VIEWS = "views"
    SERVICES = "services"
    MODELS = "models"
    RUNS = "runs"
    TRAINING_SETS = "training_sets"
    ANY = "any"
