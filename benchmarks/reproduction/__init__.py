"""What `benchmarks.reproduce` is made of: the methods, the cells that have finished, and the pages made of them."""
