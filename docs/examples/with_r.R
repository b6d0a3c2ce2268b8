# Share of the starts that end in each order, with base R: Rscript with_r.R starts.csv minima.csv
files <- commandArgs(trailingOnly = TRUE)
starts <- read.csv(files[1], na.strings = "")
minima <- read.csv(files[2], na.strings = "")
order <- minima$anti_aligned[match(starts$minimum_id, minima$minimum_id)]
# Starts that ended in no minimum have no order, and stay in the denominator.
shares <- prop.table(table(order, useNA = "ifany"))
for (k in seq_along(shares)) {
  name <- names(shares)[k]
  cat(if (is.na(name)) "none" else name, round(shares[[k]], 6), "\n")
}
