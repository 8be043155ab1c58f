"""Unimodal encoders: networks that map a batch of one modality to ``dim`` features a row.

    configs         configurations, and the registry of kinds: mlp, leaky_mlp, cnn, vit, sequence, multibench,
                    transformer, bag, frozen, module
    build           the encoder of a configuration, for given inputs and seed
    networks        the networks themselves
    published       the MLP and the Transformer of the code of Tjandrasuwita et al.
    user_modules    encoders that a function of the user's returns, and the checks they must pass
    pretrained      encoders on this machine by name: sentence-transformers, transformers, OpenCLIP, timm or a function
    transformers_models  models of transformers: texts, images, and both towers of CLIP and SigLIP
    inputs          texts and images from files, folders, columns and sequences
    embedding       embeddings of such inputs with such an encoder, written to a file: ``modalign embed``

An encoder holds no buffers, draws no random numbers after it was initialised and mixes no rows, so copies of one can
be stacked and called at once. uint8 inputs are pixels and are mapped to [-1, 1]. An encoder ends in a linear layer,
without a non-linearity after it, except those of ``published``. Losses, task heads and training belong to ``losses``
and ``experiments``.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
