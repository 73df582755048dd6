"""Feature extraction: the extractor and its files."""
