"""What the workers of Spark are forked from."""

from batch.spark.daemon import forget_archives


def test_importers_of_archives_are_dropped_and_archives_of_python_can_still_be_searched() -> None:
    path = ["/spark/pyspark.zip", "/spark/spark-core_2.13.jar", "/env/site-packages"]
    importers: dict[str, object] = {
        name: object() for name in [*path, "/spark/pyspark.zip/pyspark/sql", "/spark/spark-core_2.13.jar/org"]
    }
    forget_archives(path, importers)
    assert path == ["/spark/pyspark.zip", "/env/site-packages"]
    assert set(importers) == {"/env/site-packages"}
