"""The transfer study: every source on every target."""
