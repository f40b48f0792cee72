"""The repetition penalty as the released code computes it: NLTK's sentence BLEU for every pair, scikit-learn's clusters.

    python pipelines/bench/repetition_peer.py FILE [--of 2048]

FILE is what `cargo bench --bench repetition -- --questions 256 --write FILE` leaves. Prints one line of JSON. With `--of` the time is scaled to
the pairs of so many questions, for whole steps take NLTK minutes (`scaled` says so); clusters are compared on the questions of the file.
"""

import argparse
import json
import time

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from sklearn.cluster import AgglomerativeClustering

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--of", type=int, default=0, help="questions that the time is scaled to; 0: as many as the file holds")
arguments = parser.parse_args()

with open(arguments.file, encoding="utf-8") as file:
    record = json.load(file)
questions, ours, threshold = record["questions"], record["clusters"], record["threshold"]
count = len(questions)

started = time.perf_counter()
smooth = SmoothingFunction().method1
distances = np.zeros((count, count))
for i in range(count):
    for j in range(i, count):
        if i == j:
            score = 1.0
        else:
            score = sentence_bleu([questions[j].split()], questions[i].split(), smoothing_function=smooth)
        distances[i, j] = distances[j, i] = 1 - score
pairs_seconds = time.perf_counter() - started
started = time.perf_counter()
labels = AgglomerativeClustering(
    n_clusters=None, distance_threshold=threshold, metric="precomputed", linkage="average"
).fit_predict(distances)
cluster_seconds = time.perf_counter() - started


def by_first_occurrence(labels):
    numbers = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]


of = arguments.of or count
factor = (of * (of - 1)) / (count * (count - 1))
theirs = by_first_occurrence(labels.tolist())
print(
    json.dumps(
        {
            "case": f"repetition {of} x 60 words",
            "name": "NLTK + scikit-learn",
            "seconds": (pairs_seconds + cluster_seconds) * factor,
            "rows": of,
            "measured_rows": count,
            "measured_seconds": pairs_seconds + cluster_seconds,
            "scaled": of != count,
            "clusters": len(set(theirs)),
            "clusters_equal": theirs == by_first_occurrence(ours),
            "threads": 1,
        }
    )
)
