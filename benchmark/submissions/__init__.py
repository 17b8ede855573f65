"""Results of other people: what is checked of a record before it stands in a table, and what a pull request needs."""
