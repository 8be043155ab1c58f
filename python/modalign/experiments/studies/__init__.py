"""Studies of papers: each trains or compares what a paper did, and sets the paper's numbers beside ours with a verdict.

    registry         every study, declared once
    study, claims    the folder of a study and its resumable parts; claims, rules and verdicts
    emergence, strength, multibench, vision_language (with vision_language_claims)   the studies
    unimodal, trials, layer_pairs    training of separate encoders, search of their settings, alignment of their layers
    text_encoders, caption_changes   text encoders that are installed, and captions with fewer shared words

A study writes tables and verdicts. Pages and figures are drawn in ``report``.
"""
