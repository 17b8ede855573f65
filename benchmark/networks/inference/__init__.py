"""Forward passes that do less work and give the same bits."""
