// The first text of the contract from another language's gRPC; run by test_first_generation.
//   node client.js PROTO HOST:PORT CA CERTIFICATE KEY
const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, address, ca, certificate, key] = process.argv.slice(2);
const definition = loader.loadSync(proto, { keepCase: true, enums: String, defaults: true });
const { workerservice } = grpc.loadPackageDefinition(definition);
const worker = new workerservice.WorkerService(
  address,
  grpc.credentials.createSsl(
    fs.readFileSync(ca), fs.readFileSync(key), fs.readFileSync(certificate)),
);

const call = (method, request) =>
  new Promise((resolve, reject) =>
    worker[method](request, (error, response) => (error ? reject(error) : resolve(response))));

const output = (jobID) =>
  new Promise((resolve, reject) => {
    let text = "";
    worker.GetOutput({ jobID })
      .on("data", (message) => { text += message.output; })
      .on("error", reject)
      .on("end", () => resolve(text));
  });

async function main() {
  const script = "printf 'h\\303\\251llo \\377'; exit 3";
  const short = await call("Start", { commandName: "sh", Arguments: ["-c", script] });
  const text = await output(short.jobID);
  const ended = await call("QueryStatus", { jobID: short.jobID });
  const long = await call("Start", { commandName: "sleep", Arguments: ["1000"] });
  const running = await call("QueryStatus", { jobID: long.jobID });
  const stop = await call("Stop", { jobID: long.jobID });
  const stopped = await call("QueryStatus", { jobID: long.jobID });
  const missing = await call("QueryStatus", { jobID: "no-such-job" }).then(
    () => "found", (error) => grpc.status[error.code]);
  console.log(JSON.stringify({
    started: [short.success, short.jobID !== "", short.pid === ended.pid],
    output: text,
    ended: [ended.JobStatus, ended.exitCode, ended.command],
    running: [running.JobStatus, running.exitCode],
    stopped: [stop.success, stopped.JobStatus, stopped.exitCode],
    missing,
  }));
  worker.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
