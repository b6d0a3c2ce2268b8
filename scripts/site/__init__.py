"""The site of the documents: its reference from the code, its formulas, a look at every link. Run by scripts/docs."""
