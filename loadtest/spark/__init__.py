"""The historical join on Spark at growing sizes."""
