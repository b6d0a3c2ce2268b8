# Untested. Share of the starts that end in each order: julia with_julia.jl starts.arrow minima.arrow
using Arrow, DataFrames
starts, minima = DataFrame.(Arrow.Table.(ARGS[1:2]))
ends = leftjoin(starts[:, [:minimum_id]], minima[:, [:minimum_id, :anti_aligned]]; on = :minimum_id, matchmissing = :notequal)
shares = combine(groupby(ends, :anti_aligned), nrow => :starts)
shares.share = shares.starts ./ sum(shares.starts)
println(sort(shares, :anti_aligned))
