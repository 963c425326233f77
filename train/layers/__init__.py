"""Layers that heads, fusions and attentions are made of."""
