"""The compressors, one file a method."""
