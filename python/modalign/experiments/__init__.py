"""Controllable alignment: train encoders with task + strength * InfoNCE over many strengths and seeds at once.

config      the YAML of a sweep, typed
training    one vectorised loop for all the runs of a case
sweep       every case, on disk, resumable
"""
