"""Adapters between t2v_hub and other systems, one module each."""
