// An echo server of npm `ws`; see tests/support/backend.rs. `echo.mjs [PORT]` listens on 127.0.0.1.
import { createRequire } from "node:module";
const { WebSocketServer } = createRequire(`${process.env.WSGATE_TEST_NODE}/`)("ws");
const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2] ?? 0),
  maxPayload: 64 << 20,
  maxFragments: 0, // no limit: Autobahn 9.3.1 sends 65,536
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => (offered.has("chat.v2") ? "chat.v2" : offered.values().next().value),
  verifyClient: ({ req }, answer) => {
    const refused = /refuse-(\d+)/.exec(req.url);
    if (refused) answer(false, Number(refused[1]), "not here", { "X-Reason": "told so" });
    else answer(true);
  },
});
server.on("listening", () => tell({ event: "listening", port: server.address().port }));
server.on("connection", (socket, request) => {
  tell({ event: "open", path: request.url, headers: request.headers, protocol: socket.protocol, extensions: socket.extensions });
  const sizes = [];
  socket.on("message", (data, binary) => {
    if (sizes.length < 8) sizes.push(data.length);
    const close = !binary && data.length < 200 && /^close (\d+) ?(.*)$/.exec(data.toString());
    if (close) socket.close(Number(close[1]), close[2]);
    else socket.send(data, { binary });
  });
  socket.on("error", () => {});
  socket.on("ping", (payload) => tell({ event: "ping", payload: payload.toString("hex") }));
  socket.on("pong", (payload) => tell({ event: "pong", payload: payload.toString("hex") }));
  socket.on("close", (code, reason) => tell({ event: "close", code, reason: reason.toString(), sizes }));
});
