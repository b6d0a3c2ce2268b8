"""Share of the starts that end in each order, with pandas: with_pandas.py starts.parquet minima.parquet"""

import sys

import pandas as pd

starts, minima = (pd.read_parquet(file) for file in sys.argv[1:3])
orders = minima[["minimum_id", "anti_aligned"]].rename(columns={"anti_aligned": "order"})
ends = starts.merge(orders, on="minimum_id", how="left")
# Starts that ended in no minimum have no order, and stay in the denominator.
for order, share in ends["order"].value_counts(normalize=True, dropna=False).sort_index().items():
    print("none" if pd.isna(order) else int(order), round(share, 6))
