"""The historical jobs on Spark, with the same compiled kernels in the workers."""
