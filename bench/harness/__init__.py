"""What benchmarks stand on: records, peers, limits of the machine, workloads."""
