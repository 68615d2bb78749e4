"""Raw depth datasets in their published layouts → one Parquet shard format, on Ray Data."""
