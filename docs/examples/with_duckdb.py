"""Share of the starts that end in each order, in SQL: with_duckdb.py starts.parquet minima.parquet"""

import sys

import duckdb

query = """
    select orders.anti_aligned, count(*) / sum(count(*)) over () as share
    from read_parquet($1) as starts left join read_parquet($2) as orders using (minimum_id)
    group by orders.anti_aligned order by orders.anti_aligned nulls last"""
for order, share in duckdb.execute(query, sys.argv[1:3]).fetchall():
    print("none" if order is None else order, round(share, 6))
