"""Label of hard negatives among the instances of a sample."""

__all__ = ["HARD_NEGATIVE_LABEL"]

# Hard negatives are packed as ignored instances, so that transforms move them with the image. Their
# label tells them from ignored regions, whose label is that of a class.
HARD_NEGATIVE_LABEL = -1
