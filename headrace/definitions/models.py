"""Models: who pins a feature service version."""

from dataclasses import dataclass

from headrace.definitions.base import Definition
from headrace.definitions.checks import check_text
from headrace.names import REFERENCE_LENGTH_MAX, VersionRef, parse_pinned_ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Definition):
    """One model and the service version that it was trained against: `feature_service="flights.ml.delay@v1"`."""

    feature_service: str

    def __post_init__(self) -> None:
        Definition.__post_init__(self)
        check_text(self.feature_service, "feature_service", REFERENCE_LENGTH_MAX, required=True)
        parse_pinned_ref(self.feature_service, "feature_service")

    @property
    def service(self) -> VersionRef:
        """The pinned service version."""
        return parse_pinned_ref(self.feature_service, "feature_service")
