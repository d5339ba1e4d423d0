"""Speed and memory as figures: against a peer, or against ourselves, in the same run. It asserts nothing."""
