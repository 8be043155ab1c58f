"""Studies of papers: each trains or compares what a paper did, and sets the paper's numbers beside ours with a verdict.

    registry         every study, declared once
    settings, changes    what a setting may be, and the claims from which a changed one takes the paper's number
    study            the folder of a study and its resumable parts
    measured, repetition   statistics, and the intervals and needs of their sources of chance
    claims, characteristics   claims, rules and verdicts, and how often the rules are right
    multibench_grid, multibench_data, multibench_published   what it trains, on which files, and the paper's protocol
    emergence_grid   what the study of emergence trains and compares, by either protocol
    strength_real, strength_real_claims   the study of strengths on the paper's real data
    emergence, strength, multibench, vision_language   the studies, each with its claims in emergence_claims,
                     strength_claims, multibench_claims and vision_language_claims
    unimodal, trials, layer_pairs    training of separate encoders, search of their settings, alignment of their layers
    vision_language_grid, caption_levels   what it compares, and captions by uniqueness, changed or given
    text_encoders, caption_changes   text encoders that are installed, and captions with fewer shared words

A study writes tables and verdicts. Pages and figures are drawn in ``report``.
"""
