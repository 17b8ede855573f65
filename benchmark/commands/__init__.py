"""The commands of `snnbench`, each a thin layer over the room that does the work."""
