"""Raw sample → row → Parquet shard, on Ray Data: `dpt prepare`."""
