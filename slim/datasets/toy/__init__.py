"""The toy domains: small stand-ins for the datasets of the paper."""
