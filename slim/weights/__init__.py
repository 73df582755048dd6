"""Whatever comes from the internet: catalogue, fetching, class names, conversion."""
