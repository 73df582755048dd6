"""The paper in miniature: toy domains, the claims that `./demo.sh` tests on them, and its seeds."""
