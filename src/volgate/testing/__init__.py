"""Contract suites and fault tools, shipped for driver authors."""
