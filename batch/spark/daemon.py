"""The process that Spark forks its Python workers from, with our modules loaded, so that no worker loads them anew."""

import gc

from pyspark.daemon import manager

import batch.spark.historical
import batch.spark.window_history  # noqa: F401 - as above

if __name__ == "__main__":
    gc.freeze()  # Spark collects after every task, and what is loaded here is no garbage
    manager()
