"""Settings of a session: what pyiceberg's address becomes, and what is refused before Java starts."""

from pathlib import Path

import pytest

from batch.spark.session import Catalogue, ObjectStore, catalogue_settings, find_jars, session_settings
from headrace.errors import FailedPrecondition, InvalidArgument


def catalogue(uri: str, store: ObjectStore | None = None) -> Catalogue:
    return Catalogue("lake", uri, "file:///warehouse", store)


def test_sqlite_address_becomes_its_jdbc_form() -> None:
    settings = catalogue_settings(catalogue("sqlite:////var/lake/catalogue.db"))
    assert settings["spark.sql.catalog.lake.uri"] == "jdbc:sqlite:/var/lake/catalogue.db"
    assert settings["spark.sql.catalog.lake.type"] == "jdbc"
    assert settings["spark.sql.catalog.lake.warehouse"] == "file:///warehouse"
    assert "spark.sql.catalog.lake.jdbc.user" not in settings


def test_postgresql_address_keeps_user_and_password_out_of_the_uri() -> None:
    settings = catalogue_settings(catalogue("postgresql+psycopg://me:p%40ss@db:6000/lake"))
    assert settings["spark.sql.catalog.lake.uri"] == "jdbc:postgresql://db:6000/lake"
    assert settings["spark.sql.catalog.lake.jdbc.user"] == "me"
    assert settings["spark.sql.catalog.lake.jdbc.password"] == "p@ss"


@pytest.mark.parametrize(
    "uri", ["sqlite:///relative.db", "sqlite://", "mysql://me@db/lake", "postgresql://db", "", "lake.db"]
)
def test_database_that_spark_cannot_share_is_refused(uri: str) -> None:
    with pytest.raises(InvalidArgument, match="sqlite:////absolute/path") as caught:
        catalogue_settings(catalogue(uri))
    assert caught.value.field == "catalogue.uri"


def test_secrets_stay_out_of_the_text_of_a_catalogue() -> None:
    store = ObjectStore("http://127.0.0.1:9", access_key_id="key", secret_access_key="hidden")
    text = repr(catalogue("postgresql://me:password@db/lake", store))
    assert "hidden" not in text
    assert "password" not in text


def test_object_store_is_read_by_icebergs_own_reader() -> None:
    store = ObjectStore("http://127.0.0.1:9", "eu-west-1", "key", "secret")
    settings = catalogue_settings(catalogue("sqlite:////c.db", store))
    assert settings["spark.sql.catalog.lake.io-impl"] == "org.apache.iceberg.aws.s3.S3FileIO"
    assert settings["spark.sql.catalog.lake.s3.endpoint"] == "http://127.0.0.1:9"
    assert settings["spark.sql.catalog.lake.client.region"] == "eu-west-1"


def test_object_store_without_keys_leaves_them_to_the_machine() -> None:
    settings = catalogue_settings(catalogue("sqlite:////c.db", ObjectStore()))
    assert not [key for key in settings if "access-key" in key or key.endswith("s3.endpoint")]


def test_session_speaks_utc_and_binds_to_loopback_unless_told() -> None:
    settings = session_settings(catalogue("sqlite:////c.db"), jars=[Path("/a.jar"), Path("/b.jar")])
    assert settings["spark.jars"] == "/a.jar,/b.jar"
    assert settings["spark.sql.session.timeZone"] == "UTC"
    assert settings["spark.driver.bindAddress"] == "127.0.0.1"
    beyond = session_settings(catalogue("sqlite:////c.db"), jars=[], loopback=False)
    assert "spark.driver.bindAddress" not in beyond


def test_session_of_our_own_jobs_needs_neither_catalogue_nor_jars() -> None:
    settings = session_settings(None, jars=())
    assert not [key for key in settings if "catalog" in key or key == "spark.jars"]
    assert settings["spark.sql.session.timeZone"] == "UTC"


def test_missing_jars_say_how_to_fetch_them(tmp_path: Path) -> None:
    (tmp_path / "other.jar").touch()
    with pytest.raises(FailedPrecondition, match=r"tools/setup\.sh spark"):
        find_jars(tmp_path)
    (tmp_path / "iceberg-spark-runtime-4.1_2.13-1.12.0.jar").touch()
    assert len(find_jars(tmp_path)) == 2
