"""Wards in network namespaces that produce labelled captures with real tools."""
