"""What `experiments.rocm_aot` is made of: the model compiled by XLA:ROCm on a machine without ROCm."""
