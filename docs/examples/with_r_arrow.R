# Untested. The same from Parquet, with the package arrow: Rscript with_r_arrow.R starts.parquet minima.parquet
library(arrow)
files <- commandArgs(trailingOnly = TRUE)
starts <- read_parquet(files[1], col_select = "minimum_id")
minima <- read_parquet(files[2], col_select = c("minimum_id", "anti_aligned"))
order <- minima$anti_aligned[match(starts$minimum_id, minima$minimum_id)]
print(prop.table(table(order, useNA = "ifany")))
