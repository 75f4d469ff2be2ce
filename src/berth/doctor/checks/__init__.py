"""The checks: each is a function from facts to findings, one file for those that look at the same thing."""
