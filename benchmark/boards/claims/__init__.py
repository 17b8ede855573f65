"""What papers say of their methods, and what the records say to it: a verdict by a rule, never by hand."""
