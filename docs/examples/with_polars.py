"""Share of the starts that end in each order, with polars: with_polars.py starts.parquet minima.parquet"""

import sys

import polars as pl

starts, minima = (pl.scan_parquet(file) for file in sys.argv[1:3])
orders = minima.select("minimum_id", order="anti_aligned")
ends = starts.select("minimum_id").join(orders, on="minimum_id", how="left")
# Starts that ended in no minimum have no order, and stay in the denominator.
shares = ends.group_by("order").agg(share=pl.len()).with_columns(pl.col("share") / pl.col("share").sum())
for order, share in shares.sort("order", nulls_last=True).collect().iter_rows():
    print("none" if order is None else order, round(share, 6))
