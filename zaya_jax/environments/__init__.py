"""Problems and their verifiers: what a model is asked, and whether its answer is right."""
