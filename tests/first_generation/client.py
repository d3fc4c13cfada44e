"""A client that knows nothing but the contract's first text; run by test_first_generation.

    python client.py STUBS HOST:PORT CA CERTIFICATE KEY

It starts, queries, streams and stops jobs, and prints what it saw as JSON.
"""

import json
import sys
from pathlib import Path

import grpc


def main() -> None:
    stubs, address, *files = sys.argv[1:]
    sys.path.insert(0, stubs)
    import workerservice_pb2 as pb
    import workerservice_pb2_grpc as rpc

    ca, certificate, key = (Path(file).read_bytes() for file in files)
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    with grpc.secure_channel(address, credentials) as channel:
        worker = rpc.WorkerServiceStub(channel)
        script = "printf 'h\\303\\251llo \\377'; exit 3"
        short = worker.Start(pb.StartRequest(commandName="sh", Arguments=["-c", script]))
        output = [m.output for m in worker.GetOutput(pb.GetOutputRequest(jobID=short.jobID))]
        ended = worker.QueryStatus(pb.QueryStatusRequest(jobID=short.jobID))
        long = worker.Start(pb.StartRequest(commandName="sleep", Arguments=["1000"]))
        running = worker.QueryStatus(pb.QueryStatusRequest(jobID=long.jobID))
        stop = worker.Stop(pb.StopRequest(jobID=long.jobID))
        stopped = worker.QueryStatus(pb.QueryStatusRequest(jobID=long.jobID))
        try:
            worker.QueryStatus(pb.QueryStatusRequest(jobID="no-such-job"))
            missing = "found"
        except grpc.RpcError as error:
            missing = error.code().name
    print(
        json.dumps(
            {
                "started": [short.success, bool(short.jobID), short.pid == ended.pid],
                "output": "".join(output),
                "ended": [pb.JobStatus.Name(ended.JobStatus), ended.exitCode, ended.command],
                "running": [pb.JobStatus.Name(running.JobStatus), running.exitCode],
                "stopped": [stop.success, pb.JobStatus.Name(stopped.JobStatus), stopped.exitCode],
                "missing": missing,
            }
        )
    )


if __name__ == "__main__":
    main()
