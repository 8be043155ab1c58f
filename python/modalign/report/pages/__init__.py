"""Pages: one module for each kind of page, which turns results into sentences, tables and figures and writes them.

sweep             a sweep: its folder's ``report.html``
comparison        two sweeps side by side
tune              the search for the best strength
alignment         one alignment of two representations, or of their layers
advice            what alignment may be expected to bring
emergence, strength, multibench, vision_language
                  the studies of papers

Each module has ``write``; ``modalign.common.doors.DRAWINGS`` names them. Nothing is measured or estimated here:
numbers, intervals and verdicts come from ``modalign.alignment`` and ``modalign.experiments``.
"""
