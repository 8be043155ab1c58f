"""Paired data sets: what two or more modalities hold about the same items, with labels and a split.

    registry     every data set, declared once; load and catalogue
    paired       PairedDataset, what all data sets are, and its split
    generated    synthetic pairs whose information is known exactly
    label_law, published_draw   the label's law and exact information; the draws of published synthetic data
    emoji_sets   1,644 emoji: two drawings, two descriptions
    handwriting  digits, pairs of digits with exact information, and six descriptions of digits
    pictures     Open Clip Art and Tux Paint's stamps: pictures, words and speech
    multibench   AV-MNIST and MM-IMDb of MultiBench
    speech_files videos of speakers of MultiBench
    features     frozen features of two encoders
    user_files   the user's arrays, files and folders
    targets      labels and splits of the user's pairs
    arrays       features, sequences, words and pixels as encoders take them
    build_emoji  the program that made the emoji files
    pickles      pickles of arrays, read without running code

A function returns a ``PairedDataset``. Nothing here trains, measures or draws.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
