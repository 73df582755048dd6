"""Large scale fine-grained categorization and domain-specific transfer learning, on TF-Slim."""
