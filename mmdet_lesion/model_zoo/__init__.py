"""Small demonstration models: their list, weights, cards and training."""

import lazy_loader

# Lazy, since the list of the models needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "card": ["render_card", "render_metafile"],
        "catalog": ["NOTICE", "ZooModel", "find_model", "list_models"],
        "export": ["export_weights"],
        "recipe": ["ModelRecipe"],
        "sources": ["DataSource", "read_sources"],
    },
)
