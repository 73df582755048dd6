"""Large scale fine-grained categorization and domain-specific transfer learning, on TF-Slim.

Data flows one way, and so do the imports: datasets, preprocessing, nets, deployment, then the
training and evaluation commands.
"""
