// Chromium, driven by npm `playwright-core`; see tests/support/backend.rs. `chromium.mjs PORT SCENARIO [PATH]` prints
// one line of JSON. Every name is the gateway's address, so that pages have origins of their own.
import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
const { chromium } = createRequire(`${process.env.WSGATE_TEST_NODE}/`)("playwright-core");

const [port, scenario, path] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "wsgate-chromium-"));
const netlog = join(folder, "netlog.json");

const browser = await chromium.launch({
  executablePath: process.env.WSGATE_TEST_CHROMIUM,
  chromiumSandbox: false, // root has none
  args: [
    `--host-resolver-rules=MAP * 127.0.0.1:${port}`,
    `--log-net-log=${netlog}`,
    // A page of a public address may not reach a loopback address: all of these names are one.
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
  ],
});

// What the page runs: a WebSocket, what comes of it, and its end.
const inPage = () => {
  globalThis.open = (url, protocols = []) =>
    new Promise((resolve) => {
      const socket = new WebSocket(url, protocols);
      socket.binaryType = "arraybuffer";
      const waiting = [];
      const arrived = [];
      const give = (item) => (waiting.length ? waiting.shift()(item) : arrived.push(item));
      socket.next = () => (arrived.length ? Promise.resolve(arrived.shift()) : new Promise((wake) => waiting.push(wake)));
      socket.ended = new Promise((wake) => (socket.onclose = ({ code, reason, wasClean }) => wake({ code, reason, wasClean })));
      socket.onmessage = ({ data }) => give(data);
      socket.onopen = () => resolve(socket);
      socket.onerror = () => resolve(socket);
    });
};

// A page of this origin, as the gateway's backend serves it, with what its WebSockets were answered.
const visit = async (origin) => {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const answers = [];
  const devtools = await context.newCDPSession(page);
  await devtools.send("Network.enable");
  devtools.on("Network.webSocketHandshakeResponseReceived", ({ response }) => answers.push(response.status));
  await page.addInitScript(inPage);
  await page.goto(`${origin}/`);
  return { page, answers };
};

// How the page's own requests went.
const protocols = (page) =>
  page.evaluate(() => performance.getEntries().flatMap(({ nextHopProtocol }) => nextHopProtocol ?? []));

const scenarios = {
  // Twenty WebSockets at once, each with messages of its own, and closed with codes of their own.
  async sockets(path) {
    const { page, answers } = await visit("https://app.test");
    const result = await page.evaluate(async (path) => {
      const sockets = await Promise.all(Array.from({ length: 20 }, () => open(`wss://app.test${path}`)));
      const large = "x".repeat(300_000);
      const echoes = await Promise.all(
        sockets.map(async (socket, number) => {
          let right = 0;
          for (const text of [`${number}`, "", "gr\u00fc\u00df dich \u{1f600}", large]) {
            socket.send(text);
            right += (await socket.next()) === text;
          }
          socket.send(new Uint8Array([0, 255, number]));
          right += new Uint8Array(await socket.next()).join() === `0,255,${number}`;
          return right;
        }),
      );
      sockets.forEach((socket, number) => socket.close(number ? 3000 + number : 1000, "done"));
      const ends = await Promise.all(sockets.map((socket) => socket.ended));
      return { echoes, codes: ends.map(({ code }) => code), clean: ends.every(({ wasClean }) => wasClean) };
    }, path);
    return { ...result, answers, protocols: await protocols(page) };
  },

  // What a page of another origin sees, which has made a request to the gateway before.
  async refused() {
    const { page, answers } = await visit("https://evil.test");
    const end = await page.evaluate(async () => {
      await fetch("https://app.test/", { mode: "no-cors", credentials: "include" });
      return (await open("wss://app.test/echo")).ended;
    });
    return { ...end, answers };
  },

  // What a page sees that sends too much, and has more on its way when it is closed.
  async excess(path) {
    const { page } = await visit("https://app.test");
    return page.evaluate(async (path) => {
      const socket = await open(`wss://app.test${path}`);
      for (let sent = 0; sent < 200; sent += 1) socket.send("x".repeat(1000));
      return socket.ended;
    }, path);
  },

  // Two pages in one room, with the token as a subprotocol, which is all that a browser can do.
  async rooms() {
    const [one, two] = [await visit("https://app.test"), await visit("https://app.test")];
    const join = (token) =>
      (async () => {
        globalThis.socket = await open("wss://app.test/ws", ["rooms.v1", "bearer", token]);
        globalThis.say = (type, payload) => socket.send(JSON.stringify({ type, payload }));
        globalThis.message = async (type) => {
          for (;;) {
            const message = JSON.parse(await socket.next());
            if (message.type === type) return message.payload;
          }
        };
        await message("connection_established");
        say("join_room", { room_id: "browsers" });
        await message("room_joined");
        return socket.protocol;
      })();
    const tokens = process.env.WSGATE_TEST_TOKENS.split(",");
    const protocol = await one.page.evaluate(join, tokens[0]);
    await two.page.evaluate(join, tokens[1]);
    await one.page.evaluate(() => say("message", { room_id: "browsers", message: { text: "gr\u00fc\u00df dich" } }));
    return { protocol, chat: await two.page.evaluate(() => message("chat_message")) };
  },

  // A backend's close, and the end of a page with an open WebSocket.
  async ends() {
    const { page } = await visit("https://app.test");
    const end = await page.evaluate(async () => {
      const socket = await open("wss://app.test/app/ws");
      socket.send("close 4321 my own");
      return socket.ended;
    });
    await page.evaluate(() => open("wss://app.test/app/left").then(() => {}));
    await page.goto("about:blank");
    return end;
  },

  // Ordinary requests: a body there and back, an upload that is still being written, and events as they are sent.
  async requests() {
    const { page } = await visit("https://app.test");
    const result = await page.evaluate(async () => {
      const body = new Uint8Array(3 << 20).map((_, at) => at * 31);
      const back = new Uint8Array(await (await fetch("/app/mirror", { method: "POST", body })).arrayBuffer());
      const mirrored = back.length === body.length && back.every((byte, at) => byte === body[at]);

      const { readable, writable } = new TextEncoderStream();
      const writer = writable.getWriter();
      const answer = fetch("/app/mirror", { method: "POST", body: readable, duplex: "half" });
      await writer.write("written in ");
      await writer.write("pieces");
      await writer.close();
      const streamed = await (await answer).text();

      // The next event is sent when the one before has been seen.
      const events = [];
      const source = new EventSource("/app/events");
      await new Promise((done, fail) => {
        source.onerror = fail;
        source.onmessage = ({ data }) => {
          events.push(data);
          if (events.length === 3) done();
          else fetch("/app/next", { method: "POST" });
        };
      });
      source.close();
      return { mirrored, streamed, events };
    });
    return { ...result, protocols: [...new Set(await protocols(page))] };
  },
};

let result;
try {
  result = await scenarios[scenario](path);
} finally {
  await browser.close(); // which ends the netlog
}

// What went over the wire: how many upgrades each HTTP/2 connection carried, and how many went by HTTP/1.1.
const { constants, events } = JSON.parse(readFileSync(netlog, "utf8"));
rmSync(folder, { recursive: true, force: true });
const { HTTP2_SESSION_SEND_HEADERS, HTTP_TRANSACTION_SEND_REQUEST_HEADERS } = constants.logEventTypes;
const upgrades = (wanted, line) =>
  events.filter(({ type, params }) => type === wanted && params?.headers.some((header) => line.test(header)));
const connections = {};
for (const { source } of upgrades(HTTP2_SESSION_SEND_HEADERS, /^:protocol: websocket$/))
  connections[source.id] = (connections[source.id] ?? 0) + 1;
const http1 = upgrades(HTTP_TRANSACTION_SEND_REQUEST_HEADERS, /^upgrade: websocket$/i).length;
const report = { ...result, http2: Object.values(connections), http1 };
process.stdout.write(JSON.stringify(report) + "\n", () => process.exit(0));
