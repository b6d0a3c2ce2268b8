"""Tables as bytes: JSON, CSV, Arrow and Parquet, for files, pipes and HTTP."""
