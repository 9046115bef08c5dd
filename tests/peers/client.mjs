// A client of npm `ws`; see tests/support/backend.rs. `client.mjs URL SCENARIO` prints one line of JSON.
import { createRequire } from "node:module";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
const { WebSocket } = createRequire(`${process.env.WSGATE_TEST_NODE}/`)("ws");

const [url, scenario] = process.argv.slice(2);
const token = process.env.WSGATE_TEST_TOKEN;
const options = { maxPayload: 64 << 20, perMessageDeflate: { threshold: 0 }, headers: {} };
if (process.env.WSGATE_TEST_CA) options.ca = readFileSync(process.env.WSGATE_TEST_CA);
if (process.env.WSGATE_TEST_ORIGIN) options.origin = process.env.WSGATE_TEST_ORIGIN;
const protocols = (process.env.WSGATE_TEST_PROTOCOLS ?? "").split(",").filter(Boolean);
if (["rooms", "listen", "recover", "typing"].includes(scenario)) protocols.push("rooms.v1", "bearer", token);

let socket;
let queue;
let wake = () => {};
const open = () => {
  const own = [];
  const arrived = (item) => (own.push(item), wake());
  queue = own;
  socket = new WebSocket(url, protocols, options);
  socket.on("message", (data, binary) => arrived({ data, binary }));
  socket.on("close", (code, reason) => arrived({ code, reason: reason.toString() }));
  socket.on("unexpected-response", (_, response) => arrived({ status: response.statusCode }));
  socket.on("error", (error) => arrived({ error: error.message }));
};
open();
const next = async () => {
  while (queue.length === 0) await new Promise((resolve) => (wake = resolve));
  return queue.shift();
};
const message = async (type) => {
  for (;;) {
    const item = await next();
    assert.ok(item.data, JSON.stringify(item));
    const json = JSON.parse(item.data.toString());
    if (json.type === type) return json;
  }
};
const say = (type, payload) => socket.send(JSON.stringify({ type, payload }));
const report = (value) => {
  // A pipe takes it in pieces: whoever exits at once cuts it off.
  process.stdout.write(JSON.stringify(value) + "\n", () => process.exit(0));
};
const finish = async (value) => {
  socket.close(1000, "done");
  let item;
  do item = await next();
  while (item.data !== undefined);
  report({ ...value, protocol: socket.protocol, extensions: socket.extensions, close: item.code });
};

const scenarios = {
  async echo() {
    const opened = await Promise.race([new Promise((resolve) => socket.on("open", () => resolve())), next()]);
    assert.equal(opened, undefined);
    const sent = ["hello", "", "gr\u00fc\u00df dich \u{1f600}", Buffer.alloc(0), Buffer.from([0, 255, 128]), randomBytes(1 << 20), "x".repeat(100_000)];
    for (const data of sent) {
      socket.send(data);
      const back = await next();
      assert.equal(back.binary, typeof data !== "string");
      assert.ok(back.data.equals(Buffer.from(data)), "what came back differs");
    }
    socket.send("frag", { fin: false });
    socket.send("", { fin: false });
    socket.ping("between");
    socket.send("ments", { fin: true });
    await new Promise((resolve) => socket.once("pong", (data) => resolve(assert.equal(data.toString(), "between"))));
    assert.equal((await next()).data.toString(), "fragments");
    const digest = createHash("sha256").update(sent[5]).digest("hex");
    await finish({ messages: sent.length + 1, digest });
  },
  async rooms() {
    const established = await message("connection_established");
    say("join_room", { room_id: "peers" });
    const joined = await message("room_joined");
    say("message", { room_id: "peers", message: { text: "from node" } });
    const chat = await message("chat_message");
    say("leave_room", { room_id: "peers" });
    await message("room_left");
    await finish({ client_id: established.payload.client_id, joined: joined.payload, chat: chat.payload });
  },
  // Reads a room up to a message that is null; of each text it gives length and a sum of its bytes.
  async listen() {
    const sum = (bytes) => bytes.reduce((sum, byte) => (Math.imul(sum, 31) + byte) >>> 0, 0);
    await message("connection_established");
    say("join_room", { room_id: "peers" });
    const texts = [];
    let text;
    while ((text = (await message("chat_message")).payload.message) !== null) texts.push([Buffer.byteLength(text), sum(Buffer.from(text))]);
    await finish({ messages: texts.length, texts });
  },
  // Is cut off after the first message of a room, comes back, and recovers up to a message that is null.
  async recover() {
    await message("connection_established");
    say("join_room", { room_id: "peers" });
    const since = (await message("chat_message")).payload.position;
    socket.terminate();
    open();
    await message("connection_established");
    say("join_room", { room_id: "signal" });
    await message("chat_message");
    say("join_room", { room_id: "peers", since });
    const { recovered } = (await message("room_joined")).payload;
    const messages = [];
    let chat;
    while ((chat = (await message("chat_message")).payload).message !== null) messages.push([chat.position.offset, chat.message]);
    await finish({ recovered, messages });
  },
  // Types, and waits until another has begun to type and has stopped.
  async typing() {
    await message("connection_established");
    say("join_room", { room_id: "peers" });
    await message("room_joined");
    say("typing_start", { room_id: "peers" });
    const started = await message("typing_start");
    const stopped = await message("typing_stop");
    say("typing_stop", { room_id: "peers" });
    await finish({ started: started.payload, stopped: stopped.payload });
  },
  // Waits for the end, whoever makes it.
  async end() {
    let item;
    do item = await next();
    while (item.data !== undefined);
    report(item);
  },
};
await scenarios[scenario]();
