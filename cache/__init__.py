"""The feature store: immutable Parquet shards on disk."""
