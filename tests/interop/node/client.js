// Calls a feature server as a client of Node would, and prints what it saw as one JSON object.
// node client.js CONFIG.json runs the cases that tests/interop/cases.py expects; node client.js CONFIG.json drain says
// "ready" once it is answered, reads on until the server is gone, and prints how its calls ended.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const LIMIT_MS = 20_000;
const OPTIONS = { longs: Number, enums: String, defaults: true, keepCase: true };

const config = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const contract = "protos/feature/v1/online_feature_service.proto";
const ours = grpc.loadPackageDefinition(loader.loadSync(contract, { ...OPTIONS, includeDirs: [config.root] }));
const common = loader.loadFileDescriptorSetFromBuffer(fs.readFileSync(config.descriptors), OPTIONS);
const health = grpc.loadPackageDefinition(common).grpc.health.v1;

const credentials = config.authority
  ? grpc.credentials.createSsl(fs.readFileSync(config.authority))
  : grpc.credentials.createInsecure();
const online = new ours.headrace.feature.v1.OnlineFeatureService(config.address, credentials);

function metadata(token = config.reader, more = {}) {
  const out = new grpc.Metadata();
  if (token) out.set("authorization", `Bearer ${token}`);
  for (const [name, value] of Object.entries(more)) out.set(name, value);
  return out;
}

function soon(limitMs = LIMIT_MS) {
  return { deadline: Date.now() + limitMs };
}

// The answer of a unary call, or its error as { code, reason, domain }.
function call(stub, method, request, sent = metadata(), options = soon(), started = () => {}) {
  return new Promise((resolve) => {
    const running = stub[method](request, sent, options, (error, answer) => {
      resolve(error ? failure(error) : answer);
    });
    started(running);
  });
}

function failure(error) {
  const out = { code: grpc.status[error.code] };
  const [details] = error.metadata ? error.metadata.get("grpc-status-details-bin") : [];
  if (details === undefined) return out;
  for (const one of decode("google.rpc.Status", details).details) {
    if (!one.type_url.endsWith("/google.rpc.ErrorInfo")) continue;
    const info = decode("google.rpc.ErrorInfo", one.value);
    out.reason = info.reason;
    out.domain = info.domain;
  }
  return out;
}

function decode(name, bytes) {
  return common[name].deserialize(bytes);
}

function read(keys, selection = { feature_service: config.service }) {
  return { ...selection, entity_columns: [{ join_key: "user_id", int64_values: keys }] };
}

function column(answer, name) {
  return answer.columns.find((one) => one.name === name);
}

function ages(answer) {
  const { values } = column(answer, "age");
  return Array.from({ length: values.length / 4 }, (_, row) => values.readInt32LE(row * 4));
}

function names(answer) {
  const { values, offsets } = column(answer, "name");
  const at = (row) => offsets.readUInt32LE(row * 4);
  return Array.from({ length: offsets.length / 4 - 1 }, (_, row) => values.toString("utf8", at(row), at(row + 1)));
}

function summary(answer) {
  if (answer.code) return answer;
  const statuses = [...new Set(answer.columns.map((one) => one.statuses.toString("hex")))];
  return { rows: answer.row_count, statuses, ages: ages(answer), names: names(answer) };
}

async function isAlive() {
  return (await call(online, "GetOnlineFeatures", read([1]))).row_count === 1;
}

function ingest(writes, options, endsItself) {
  return new Promise((resolve) => {
    const stream = online.IngestFeatures(metadata(config.writer), options);
    const counts = [];
    stream.on("data", (answer) => counts.push(answer.write.row_count));
    stream.on("error", (error) => resolve({ counts, ...failure(error) }));
    stream.on("end", () => resolve({ counts, code: "OK" }));
    for (const write of writes) stream.write({ write });
    if (endsItself) stream.end();
  });
}

function write(key, age) {
  const row = {
    entity_keys: [{ int_value: key }],
    event_time: { seconds: config.now_s, nanos: 0 },
    values: { age: { int_value: age }, name: { string_value: `written ${key}` } },
  };
  return { feature_view: config.view, rows: [row] };
}

const CASES = {
  async prepare() {
    const found = await call(online, "PrepareFeatureSet", { feature_service: config.service });
    return {
      handle_bytes: found.handle.length,
      columns: found.columns.map((one) => one.name),
      join_keys: found.join_keys.map((one) => one.name),
      feature_service: found.feature_service,
    };
  },
  async read() {
    return summary(await call(online, "GetOnlineFeatures", read([1, 2, 100_000])));
  },
  async read_by_handle() {
    const { handle } = await call(online, "PrepareFeatureSet", { feature_service: config.service });
    const request = { ...read([1, 2, 100_000], { handle }), options: { include_names: true } };
    return summary(await call(online, "GetOnlineFeatures", request));
  },
  async large() {
    const keys = Array.from({ length: 10_000 }, (_, number) => number % 200);
    const answer = await call(online, "GetOnlineFeatures", read(keys));
    return { rows: answer.row_count, age_sum: ages(answer).reduce((sum, one) => sum + one, 0) };
  },
  async errors() {
    return [
      await call(online, "GetOnlineFeatures", {}),
      await call(online, "GetOnlineFeatures", read([1], { feature_service: "shop.web.none" })),
      await call(online, "PrepareFeatureSet", { feature_service: "shop.web.none" }),
    ];
  },
  async unimplemented() {
    const client = new grpc.Client(config.address, credentials);
    const pass = (bytes) => bytes;
    return new Promise((resolve) => {
      client.makeUnaryRequest("/headrace.feature.v1.OnlineFeatureService/Nothing", pass, pass, Buffer.alloc(0),
        metadata(), soon(), (error) => { client.close(); resolve(error ? failure(error).code : "OK"); });
    });
  },
  async tokens() {
    const reads = ["", "stranger", config.writer].map((token) =>
      call(online, "GetOnlineFeatures", read([1]), metadata(token)));
    return [...(await Promise.all(reads)), await call(online, "WriteFeatures", write(1, 1), metadata(config.reader))];
  },
  async deadline() {
    const held = await ingest([write(500, 41)], soon(500), false);
    const passed = await call(online, "GetOnlineFeatures", read([1]), metadata(), soon(-1));
    return { held: held.code, counts: held.counts, passed: passed.code, alive: await isAlive() };
  },
  async gzip() {
    const channel = { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip };
    const client = new ours.headrace.feature.v1.OnlineFeatureService(config.address, credentials, channel);
    const answer = await call(client, "GetOnlineFeatures", read(Array.from({ length: 200 }, (_, number) => number)));
    client.close();
    return answer.code || answer.row_count;
  },
  async cancel() {
    const calls = Array.from({ length: 50 }, () =>
      call(online, "GetOnlineFeatures", read([1]), metadata(), soon(), (running) => running.cancel()));
    return { codes: [...new Set((await Promise.all(calls)).map((one) => one.code))], alive: await isAlive() };
  },
  async concurrent() {
    const calls = Array.from({ length: 100 }, (_, number) => call(online, "GetOnlineFeatures", read([number])));
    const found = (await Promise.all(calls)).map((answer) => names(answer)[0]);
    return found.filter((name, number) => name === `user ${number}`).length;
  },
  async ingest() {
    const told = await ingest([write(501, 42), write(502, 43), write(503, 44)], soon(), true);
    return { ...told, ages: ages(await call(online, "GetOnlineFeatures", read([501, 502, 503]))) };
  },
  async health() {
    const client = new health.Health(config.address, credentials);
    const known = await call(client, "Check", { service: "" }, metadata(""));
    const unknown = await call(client, "Check", { service: "nobody" }, metadata(""));
    client.close();
    return [known.status, unknown.code];
  },
};

// Eight readers at a time, each until a call of its own fails.
async function drain() {
  const ends = {};
  const reader = async () => {
    for (;;) {
      const answer = await call(online, "GetOnlineFeatures", read([1]));
      const code = answer.code || "OK";
      ends[code] = (ends[code] || 0) + 1;
      if (code !== "OK") return;
    }
  };
  await isAlive();
  process.stdout.write("ready\n");
  await Promise.all(Array.from({ length: 8 }, reader));
  return ends;
}

async function cases() {
  const seen = {};
  for (const [name, run] of Object.entries(CASES)) {
    try {
      seen[name] = await run();
    } catch (error) {
      seen[name] = { thrown: String(error) };
    }
  }
  return seen;
}

async function main() {
  const seen = await (process.argv[3] === "drain" ? drain() : cases());
  online.close();
  process.stdout.write(JSON.stringify(seen) + "\n");
}

main();
