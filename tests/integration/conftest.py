"""Fixtures of the tests that join on Spark."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from batch.spark.session import Catalogue
from tests.integration.lakes import LOCAL, catalogue_at, session_on


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return catalogue_at(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def spark(catalogue: Catalogue) -> Iterator[SparkSession]:
    with session_on(LOCAL, catalogue) as session:
        yield session
