"""NVIDIA NeMo's Conformer-CTC: its features, its encoder, and its archives as teachers.

The blocks are ESPnet's own. What differs is around them: a padded front-end, no norm after the last
block, and features that are normalised per utterance.
"""
