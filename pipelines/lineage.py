"""The lineage of a run as OpenLineage events, one JSON object a line, for Marquez, DataHub and what else reads them: `just lineage > events.jsonl`.

One COMPLETE event for each shard, in the order in which shards finished: the job is the stage at its place, inputs and outputs are the files of its manifest,
each with its digest as the dataset's version. The run's id follows from the fingerprint: written again, the events are the same.
"""

import json
import sys
import uuid
from pathlib import Path

PRODUCER = "urn:rzero"
EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = "https://openlineage.io/spec/facets/1-0-1"


def dataset(namespace: str, record: dict) -> dict:
    """A file, with its digest as its version and, of a table, its rows."""
    facets = {"version": {"_producer": PRODUCER, "_schemaURL": f"{FACETS}/DatasetVersionDatasetFacet.json", "datasetVersion": record["digest"]}}
    return {"namespace": namespace, "name": record["path"], "facets": facets}


def with_size(found: dict, record: dict) -> dict:
    """An output also says how much was written."""
    size = {"_producer": PRODUCER, "_schemaURL": f"{FACETS}/OutputStatisticsOutputDatasetFacet.json", "size": record["num_bytes"]}
    if record["num_rows"] is not None:
        size["rowCount"] = record["num_rows"]
    return found | {"outputFacets": {"outputStatistics": size}}


def event(namespace: str, manifest: dict) -> dict:
    step = f"/step-{manifest['step']:02}" if manifest["step"] else ""
    update = f"/update-{manifest['update']:02}" if manifest["update"] else ""
    place = f"iter-{manifest['iteration']:03}/{manifest['phase']}{step}{update}"
    return {
        "eventType": "COMPLETE",
        "eventTime": manifest["finished_at"],
        "producer": PRODUCER,
        "schemaURL": EVENT,
        "run": {"runId": str(uuid.UUID(manifest["fingerprint"][:32]))},
        "job": {"namespace": namespace, "name": f"{place}/{manifest['stage']}-{manifest['shard_index']:05}-of-{manifest['num_shards']:05}"},
        "inputs": [dataset(namespace, record) for record in manifest["inputs"]],
        "outputs": [with_size(dataset(namespace, record), record) for record in manifest["outputs"]],
    }


def main() -> int:
    run = Path(sys.argv[1])
    if not (run / "run.json").is_file():
        print(f"error: {run} holds no run: it has no run.json\nhint: name the directory of a run: just run=data/runs/tiny lineage", file=sys.stderr)
        return 3
    manifests = [json.loads(path.read_text()) for path in sorted(run.glob("iter-*/**/manifest-*.json"))]
    namespace = f"rzero://{run.resolve().name}"
    for manifest in sorted(manifests, key=lambda manifest: manifest["finished_at"]):
        print(json.dumps(event(namespace, manifest)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
