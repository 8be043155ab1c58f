"""Benchmarks that check their answers: python -m benchmarks.compare info_nce | knn | mutual_knn | all."""
