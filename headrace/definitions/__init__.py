"""Definitions: sources, entities, feature views, on-demand views, feature services and models, as people write them."""

from headrace.definitions.base import Definition
from headrace.definitions.changes import Change, ChangeKind, DefinitionKind
from headrace.definitions.entities import Entity, EntityKey
from headrace.definitions.files import load, load_yaml, to_yaml
from headrace.definitions.functions import Function
from headrace.definitions.models import Model
from headrace.definitions.on_demand import OnDemandView, RequestSource
from headrace.definitions.python_files import load_python
from headrace.definitions.registered import (
    REGISTRY_MESSAGE_BYTES_MAX,
    RegisteredEntity,
    RegisteredModel,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    RegistryState,
    Stamp,
    State,
    registry_state,
)
from headrace.definitions.services import FeatureService, ServiceEntry
from headrace.definitions.sets import DefinitionSet
from headrace.definitions.sources import Column, Source, SourceKind
from headrace.definitions.transforms import AGGREGATES, Derived, Latest, Window, derived, latest, session, window
from headrace.definitions.views import Fallback, Feature, FeatureView

__all__ = [
    "AGGREGATES",
    "REGISTRY_MESSAGE_BYTES_MAX",
    "Change",
    "ChangeKind",
    "Column",
    "Definition",
    "DefinitionKind",
    "DefinitionSet",
    "Derived",
    "Entity",
    "EntityKey",
    "Fallback",
    "Feature",
    "FeatureService",
    "FeatureView",
    "Function",
    "Latest",
    "Model",
    "OnDemandView",
    "RegisteredEntity",
    "RegisteredModel",
    "RegisteredOnDemandView",
    "RegisteredService",
    "RegisteredSource",
    "RegisteredView",
    "RegistryState",
    "RequestSource",
    "ServiceEntry",
    "Source",
    "SourceKind",
    "Stamp",
    "State",
    "Window",
    "derived",
    "latest",
    "load",
    "load_python",
    "load_yaml",
    "registry_state",
    "session",
    "to_yaml",
    "window",
]
